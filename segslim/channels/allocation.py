"""How many channels each group keeps, so that a given fraction of the FLOPs is removed.

An allocation is a function from a level, 0 (keep all) to 1 (the least that groups may keep), to counts. `allocate`
finds the level whose counts come closest to the ratio, then single steps that come closer still.
"""

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.importance import Array
from segslim.channels.sensitivity import Sensitivity
from segslim.errors import UserError

_log = logging.getLogger(__name__)

#: How many channels each group keeps.
Counts = dict[str, int]
#: The counts at a level from 0 to 1; no count rises with the level.
Levels = Callable[[float], Counts]
KeptIndices = dict[str, NDArray[np.integer]]

#: The FLOPs removed may differ from the ratio by this fraction of the total.
TOLERANCE = 0.01
#: The share of its channels that every group keeps in a global allocation, so that no layer vanishes.
LEAST_SHARE = 0.1


def allocate(
    graph: ChannelGraph,
    importance: Mapping[str, Array],
    sensitivity: Sensitivity | None,
    ratio: float,
    align: int = 1,
    *,
    allocation: str | None = None,
    total: float | None = None,
) -> KeptIndices:
    """Chooses the channels that each scored group keeps, so that `ratio` of the FLOPs is removed, to within 0.01.

    Args:
        graph: of the network.
        importance: the scores of each group's channels; the least go first. Groups without scores keep all.
        sensitivity: the losses that "equal_loss" goes by.
        ratio: the fraction of the FLOPs to remove, from 0 to below 1.
        align: groups keep a multiple of this many channels, or all. Where that misses the ratio, half of it is used,
            and so on down to 1, with a warning.
        allocation: "equal_loss": every group loses as many channels as cost it one common loss of mIoU (as
            PaddleSlim's sensitive pruning); "uniform": every group the same share; "global": the channels of the least
            score for their FLOPs, in any group. None is equal_loss where there is a sensitivity, and else uniform.
        total: the FLOPs that `ratio` is a fraction of, by default those of this network.

    Raises UserError when `ratio` is no fraction or cannot be reached, naming the most that can.
    """
    if not 0 <= ratio < 1 or align < 1:
        raise UserError(
            f"cannot remove {ratio} of the FLOPs with align={align}: ratio is from 0 to below 1, align at least 1"
        )
    for step in (align >> halvings for halvings in range(align.bit_length())):
        budget = Budget(graph, importance, step, total)
        try:
            counts = _counts(budget, _levels(budget, sensitivity, allocation), ratio)
        except _OutOfReach:
            if step == 1:
                raise
            continue
        if step != align:
            _log.warning("align=%d cannot remove %.3f of the FLOPs: align=%d is used", align, ratio, step)
        break
    return budget.kept(counts)


def check_reachable(graph: ChannelGraph, importance: Mapping[str, Array], ratio: float, allocation: str) -> None:
    """Raises UserError when the allocation, "uniform" or "global", cannot remove `ratio` of the FLOPs, whatever the
    scores are. (At its most, equal_loss leaves every group what uniform does.)
    """
    budget = Budget(graph, importance, 1, None)
    _check_most(budget, _levels(budget, None, allocation), ratio)


class _OutOfReach(UserError):
    """The ratio cannot be removed with this alignment."""


class Budget:
    """Counts of kept channels, and the FLOPs that they take."""

    def __init__(
        self,
        graph: ChannelGraph,
        importance: Mapping[str, Array],
        align: int,
        total: float | None,
    ) -> None:
        self.groups = [group for group in graph.prunable_groups if group.name in importance]
        self.importance, self.align, self._flops = importance, align, graph.flops
        self._order = {group.name: np.argsort(-importance[group.name], kind="stable") for group in self.groups}
        self._total = graph.flops() if total is None else total

    def kept(self, counts: Counts) -> KeptIndices:
        """The channels of the highest scores."""
        return {name: np.sort(self._order[name][:count]) for name, count in counts.items()}

    def removed(self, counts: Counts) -> float:
        """The fraction of the total FLOPs that is removed."""
        return 1 - self._flops(self.kept(counts)) / self._total

    def aligned(self, group: ChannelGroup, wanted: float) -> int:
        """The least count from `wanted` up that the group may keep."""
        return min(group.size, max(1, int(np.ceil(wanted / self.align))) * self.align)

    def fewer(self, count: int) -> int:
        """The next lower multiple of `align`."""
        return (count - 1) // self.align * self.align

    def neighbours(self, counts: Counts, least: Counts) -> list[Counts]:
        """All counts in which one group keeps one step less, or more."""
        neighbours = []
        for group in self.groups:
            count = counts[group.name]
            steps = (self.fewer(count), min(group.size, (count // self.align + 1) * self.align))
            neighbours += [{**counts, group.name: step} for step in steps if least[group.name] <= step != count]
        return neighbours


def _levels(budget: Budget, sensitivity: Sensitivity | None, allocation: str | None) -> Levels:
    chosen = allocation or ("equal_loss" if sensitivity else "uniform")
    if chosen == "global":
        return global_levels(budget)
    if chosen == "uniform":
        return lambda level: {group.name: budget.aligned(group, group.size * (1 - level)) for group in budget.groups}
    if sensitivity is None:
        raise UserError(f"allocation {chosen!r} needs a sensitivity: give one, or allocation 'uniform' or 'global'")
    return equal_loss_levels(budget, sensitivity)


def equal_loss_levels(budget: Budget, sensitivity: Sensitivity) -> Levels:
    """The level is a loss of mIoU, relative to the greatest that any group was measured at; every group loses as many
    channels as cost it that loss.

    Raises UserError when the sensitivity is that of another network.
    """
    if not sensitivity.losses.keys() & budget.importance.keys():
        raise UserError("the sensitivity was measured on another network: it has none of this network's groups")
    greatest = max((loss for losses in sensitivity.losses.values() for loss in losses.values()), default=0.0)

    def share(group: ChannelGroup, level: float) -> float:
        losses = sensitivity.losses.get(group.name)
        if not losses:
            return level
        # lines between the measured points, and past the last one a line to the greatest loss at share 1
        shares = np.array([0.0, *sorted(losses), 1.0])
        curve = np.maximum.accumulate([0.0, *(losses[at] for at in sorted(losses)), max(greatest, 1e-6)])
        curve = curve + np.arange(len(curve)) * 1e-9  # strictly rising, so that it can be inverted
        return float(np.interp(level * curve[-1], curve, shares))

    return lambda level: {g.name: budget.aligned(g, g.size * (1 - share(g, level))) for g in budget.groups}


def global_levels(budget: Budget) -> Levels:
    """Blocks of `align` channels are removed in the order of mean score per FLOPs of a channel, over all groups, until
    each group is at its least.

    A channel's FLOPs are what is saved when its group alone loses one block. Groups whose channels cost nothing
    (those of auxiliary heads, which are not deployed) keep all.
    """
    full = {group.name: group.size for group in budget.groups}
    blocks = []  # (score per FLOPs, group, what it keeps without this block and all before)
    for group in budget.groups:
        count, least, worth = group.size, budget.aligned(group, LEAST_SHARE * group.size), -np.inf
        scores = np.sort(budget.importance[group.name])
        step = group.size - max(budget.fewer(group.size), least)
        saved = budget.removed({**full, group.name: group.size - step}) - budget.removed(full) if step else 0.0
        while saved > 0 and count > least:
            fewer = max(budget.fewer(count), least)
            block = scores[group.size - count : group.size - fewer]
            # a group's blocks must keep their order, which rounding could change
            worth = max(worth, block.mean() / (saved / step))
            blocks.append((worth, group.name, fewer))
            count = fewer
    blocks.sort(key=lambda block: block[0])
    return lambda level: full | {name: fewer for _, name, fewer in blocks[: round(level * len(blocks))]}


def _check_most(budget: Budget, levels: Levels, ratio: float) -> None:
    most = budget.removed(levels(1.0))
    if ratio > most + TOLERANCE:
        raise _OutOfReach(
            f"cannot remove {ratio:.3f} of the FLOPs: at most {most:.3f} can be removed with align={budget.align}"
        )


def _counts(budget: Budget, levels: Levels, ratio: float) -> Counts:
    """The counts that remove `ratio` of the FLOPs. Raises _OutOfReach when none come within TOLERANCE."""
    _check_most(budget, levels, ratio)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if budget.removed(levels(middle)) < ratio else (low, middle)
        if levels(low) == levels(high):
            break

    def distance(counts: Counts) -> float:
        return abs(budget.removed(counts) - ratio)

    # between two levels many groups change at once: take these steps one by one, then single steps of any group
    counts, above = levels(low), levels(high)
    for name in [name for name in counts if above[name] != counts[name]]:
        counts = min(counts, {**counts, name: above[name]}, key=distance)
    least = levels(1.0)
    while distance(counts) > TOLERANCE / 4:
        best = min(budget.neighbours(counts, least), key=distance, default=counts)
        if distance(best) >= distance(counts):
            break
        counts = best
    if distance(counts) > TOLERANCE:
        raise _OutOfReach(
            f"cannot remove {ratio:.3f} of the FLOPs to within {TOLERANCE} with align={budget.align}: "
            f"{budget.removed(counts):.3f} is the closest; choose a ratio near it"
        )
    return counts
