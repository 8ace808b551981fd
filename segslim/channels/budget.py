"""How many channels each group keeps, so that a given fraction of the FLOPs goes."""

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from segslim.channels.criteria import Scores
from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.sensitivity import Sensitivity
from segslim.errors import UserError

_log = logging.getLogger(__name__)

#: The FLOPs removed may differ from those asked for by this fraction of all.
TOLERANCE = 0.01

Counts = dict[str, int]


def allocate(
    graph: ChannelGraph, scores: Scores, sensitivity: Sensitivity | None, ratio: float, align: int = 1
) -> dict[str, NDArray[np.integer]]:
    """The channels to keep of each prunable group, sorted, so that `ratio` of the FLOPs goes, to within 0.01.

    With a sensitivity every group gives as many channels as cost it one common loss of mIoU (as PaddleSlim's sensitive
    pruning); without, every group gives the same share of its channels. Within a group the least scores go. What a
    group keeps is a multiple of `align`, or all.

    Raises UserError when `ratio` is no fraction or cannot be reached, naming the most that can.
    """
    if not 0 <= ratio < 1 or align < 1:
        raise UserError(
            f"cannot remove {ratio} of the FLOPs with align={align}: ratio is from 0 to below 1, align at least 1"
        )
    if sensitivity and not sensitivity.losses.keys() & scores.keys():
        raise UserError("the sensitivity was measured on another network: it has none of this network's groups")
    plan = _Plan(graph, scores, align)
    least, most = {group.name: plan.least(group) for group in plan.groups}, plan.removed
    if ratio > most(least) + TOLERANCE:
        raise UserError(
            f"cannot remove {ratio:.3f} of the FLOPs: at most {most(least):.3f} can be removed with align={align}"
        )
    share = _equal_loss(sensitivity) if sensitivity else _equal_share
    below, above = plan.bracket(share, ratio)
    counts = plan.closest(below, above, ratio)
    if abs(plan.removed(counts) - ratio) > TOLERANCE:
        raise UserError(
            f"cannot remove {ratio:.3f} of the FLOPs to within {TOLERANCE} with align={align}: "
            f"{plan.removed(counts):.3f} is the closest; choose a smaller align"
        )
    return plan.kept(counts)


def allocate_aligned(
    graph: ChannelGraph, scores: Scores, sensitivity: Sensitivity | None, ratio: float, align: int
) -> dict[str, NDArray[np.integer]]:
    """As `allocate`, but where `align` misses `ratio`, with the half of it, and so on down to 1; a warning says so.

    Raises UserError when no alignment reaches it.
    """
    for smaller in (align >> halvings for halvings in range(align.bit_length() - 1)):
        try:
            kept = allocate(graph, scores, sensitivity, ratio, smaller)
        except UserError:
            continue
        if smaller != align:
            _log.warning("align=%d cannot remove %.3f of the FLOPs: align=%d is used", align, ratio, smaller)
        return kept
    kept = allocate(graph, scores, sensitivity, ratio, min(align, 1))
    if align > 1:
        _log.warning("align=%d cannot remove %.3f of the FLOPs: channels are not aligned", align, ratio)
    return kept


#: The share of a group's channels to remove at a level from 0 (none) to 1 (all); it never falls as the level rises.
Share = Callable[[ChannelGroup, float], float]


def _equal_share(group: ChannelGroup, level: float) -> float:
    return level


def _equal_loss(sensitivity: Sensitivity) -> Share:
    """The level is a loss of mIoU, relative to the greatest that any group can reach."""
    greatest = max((loss for losses in sensitivity.losses.values() for loss in losses.values()), default=0.0)

    def share(group: ChannelGroup, level: float) -> float:
        losses = sensitivity.losses.get(group.name)
        return level if not losses else _share_at(losses, level, max(greatest, 1e-6))

    return share


def _share_at(losses: Mapping[float, float], level: float, greatest: float) -> float:
    """The share whose loss is `level` x `greatest`, by lines between the measured points; past the last one a line
    runs to (1, greatest).
    """
    shares = np.array([0.0, *sorted(losses), 1.0])
    curve = np.maximum.accumulate([0.0, *(losses[share] for share in sorted(losses)), greatest])
    curve = curve + np.arange(len(curve)) * 1e-9  # strictly rising, so that it can be inverted
    return float(np.interp(level * curve[-1], curve, shares))


class _Plan:
    """Counts of kept channels, and what they cost."""

    def __init__(self, graph: ChannelGraph, scores: Scores, align: int) -> None:
        self.graph, self.align = graph, align
        self.groups = graph.prunable_groups
        self.order = {group.name: np.argsort(-scores[group.name], kind="stable") for group in self.groups}
        self.dense = graph.flops()

    def least(self, group: ChannelGroup) -> int:
        return min(self.align, group.size)

    def kept(self, counts: Counts) -> dict[str, NDArray[np.integer]]:
        return {name: np.sort(self.order[name][:count]) for name, count in counts.items()}

    def removed(self, counts: Counts) -> float:
        return 1 - self.graph.flops(self.kept(counts)) / self.dense

    def counts(self, share: Share, level: float) -> Counts:
        return {group.name: self._count(group, share(group, level)) for group in self.groups}

    def _count(self, group: ChannelGroup, share: float) -> int:
        wanted = group.size * (1 - share)
        if wanted >= group.size:
            return group.size
        return max(self.least(group), min(group.size, int(np.ceil(wanted / self.align)) * self.align))

    def bracket(self, share: Share, ratio: float) -> tuple[Counts, Counts]:
        """Counts that remove at most, and at least, `ratio`, as close to each other as levels allow."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if self.removed(self.counts(share, middle)) < ratio:
                low = middle
            else:
                high = middle
            if self.counts(share, low) == self.counts(share, high):
                break
        return self.counts(share, low), self.counts(share, high)

    def closest(self, below: Counts, above: Counts, ratio: float) -> Counts:
        """Starts from `below` and takes single steps towards `above`, then of any group, while they bring the FLOPs
        closer to `ratio`.
        """
        counts = dict(below)
        for name in [name for name in below if above[name] != below[name]]:
            counts = min(counts, {**counts, name: above[name]}, key=lambda c: abs(self.removed(c) - ratio))
        while abs(self.removed(counts) - ratio) > TOLERANCE / 4:
            best = min(self._neighbours(counts), key=lambda c: abs(self.removed(c) - ratio), default=counts)
            if abs(self.removed(best) - ratio) >= abs(self.removed(counts) - ratio):
                break
            counts = best
        return counts

    def _neighbours(self, counts: Counts) -> list[Counts]:
        found = []
        for group in self.groups:
            fewer = (counts[group.name] - 1) // self.align * self.align
            more = min(group.size, (counts[group.name] // self.align + 1) * self.align)
            found += [
                {**counts, group.name: count}
                for count in (fewer, more)
                if self.least(group) <= count != counts[group.name]
            ]
        return found
