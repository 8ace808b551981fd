"""How many channels each group keeps, so that a given fraction of the cost goes."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.allocation import Budget, CostOf, Counts, Levels, equal_loss, everywhere, uniform
from segslim.channels.graph import ChannelGraph
from segslim.channels.scores import Scores
from segslim.channels.sensitivity import Sensitivity
from segslim.errors import UserError

_log = logging.getLogger(__name__)

#: The cost removed may differ from that asked for by this fraction of all.
TOLERANCE = 0.01


def allocate(
    graph: ChannelGraph,
    scores: Scores,
    sensitivity: Sensitivity | None,
    ratio: float,
    align: int = 1,
    *,
    allocation: str | None = None,
    cost: CostOf | None = None,
    whole: float | None = None,
    of: str = "FLOPs",
) -> dict[str, NDArray[np.integer]]:
    """The channels to keep of each scored group, sorted, so that `ratio` of the cost goes, to within 0.01.

    allocation: which groups give more. "equal_loss": every group as many channels as cost it one common loss of mIoU,
    by the sensitivity (as PaddleSlim's sensitive pruning); "uniform": every group the same share; "global": those of
    the least score for what they cost, wherever they are. Without one it is equal_loss where there is a sensitivity,
    and else uniform. Within a group the least scores go, and what it keeps is a multiple of `align`, or all.

    cost: from the channels kept of each group to a number, by default FLOPs; whole: the cost that `ratio` is a fraction
    of, by default that of this network; of: what the cost is, for messages.

    Raises UserError when `ratio` is no fraction or cannot be reached, naming the most that can.
    """
    if not 0 <= ratio < 1 or align < 1:
        raise UserError(
            f"cannot remove {ratio} of the {of} with align={align}: ratio is from 0 to below 1, align at least 1"
        )
    budget = Budget(graph, scores, align, cost or graph.flops, whole)
    levels = _levels(budget, sensitivity, allocation)
    _check_most(budget, levels, ratio, of)
    below, above = _bracket(budget, levels, ratio)
    counts = _closest(budget, below, above, levels(1.0), ratio)
    if abs(budget.removed(counts) - ratio) > TOLERANCE:
        raise UserError(
            f"cannot remove {ratio:.3f} of the {of} to within {TOLERANCE} with align={align}: "
            f"{budget.removed(counts):.3f} is the closest; choose a smaller align"
        )
    return budget.kept(counts)


def check_reachable(graph: ChannelGraph, scores: Scores, ratio: float, allocation: str) -> None:
    """Raises UserError when the allocation, "uniform" or "global", cannot remove `ratio` of the FLOPs, whatever the
    scores are. (At its most, equal_loss leaves every group what uniform does.)
    """
    budget = Budget(graph, scores, 1, graph.flops, None)
    _check_most(budget, _levels(budget, None, allocation), ratio, "FLOPs")


def _check_most(budget: Budget, levels: Levels, ratio: float, of: str) -> None:
    most = budget.removed(levels(1.0))
    if ratio > most + TOLERANCE:
        raise UserError(
            f"cannot remove {ratio:.3f} of the {of}: at most {most:.3f} can be removed with align={budget.align}"
        )


def allocate_aligned(
    graph: ChannelGraph,
    scores: Scores,
    sensitivity: Sensitivity | None,
    ratio: float,
    align: int,
    of: str = "FLOPs",
    **options: Any,
) -> dict[str, NDArray[np.integer]]:
    """As `allocate`, with its `options`, but where `align` misses `ratio`, with the half of it, and so on down to 1; a
    warning says so.

    Raises UserError when no alignment reaches it.
    """

    def aligned(to: int) -> dict[str, NDArray[np.integer]]:
        return allocate(graph, scores, sensitivity, ratio, to, of=of, **options)

    for smaller in (align >> halvings for halvings in range(align.bit_length() - 1)):
        try:
            kept = aligned(smaller)
        except UserError:
            continue
        if smaller != align:
            _log.warning("align=%d cannot remove %.3f of the %s: align=%d is used", align, ratio, of, smaller)
        return kept
    kept = aligned(min(align, 1))
    if align > 1:
        _log.warning("align=%d cannot remove %.3f of the %s: channels are not aligned", align, ratio, of)
    return kept


def _levels(budget: Budget, sensitivity: Sensitivity | None, allocation: str | None) -> Levels:
    chosen = allocation or ("equal_loss" if sensitivity else "uniform")
    if chosen == "global":
        return everywhere(budget)
    if chosen == "uniform":
        return uniform(budget)
    if sensitivity is None:
        raise UserError(f"allocation {chosen!r} needs a sensitivity: give one, or allocation 'uniform' or 'global'")
    return equal_loss(budget, sensitivity)


def _bracket(budget: Budget, levels: Levels, ratio: float) -> tuple[Counts, Counts]:
    """Counts that remove at most, and at least, `ratio`, as close to each other as levels allow."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if budget.removed(levels(middle)) < ratio:
            low = middle
        else:
            high = middle
        if levels(low) == levels(high):
            break
    return levels(low), levels(high)


def _closest(budget: Budget, below: Counts, above: Counts, least: Counts, ratio: float) -> Counts:
    """Starts from `below` and takes single steps towards `above`, then of any group, while they bring the cost closer
    to `ratio`.
    """

    def distance(counts: Counts) -> float:
        return abs(budget.removed(counts) - ratio)

    counts = dict(below)
    for name in [name for name in below if above[name] != below[name]]:
        counts = min(counts, {**counts, name: above[name]}, key=distance)
    while distance(counts) > TOLERANCE / 4:
        best = min(budget.neighbours(counts, least), key=distance, default=counts)
        if distance(best) >= distance(counts):
            break
        counts = best
    return counts
