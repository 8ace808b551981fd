"""Which groups give more channels: the counts that groups keep at a level from 0 (all) to 1 (the least they may)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.scores import Scores
from segslim.channels.sensitivity import Sensitivity
from segslim.errors import UserError

#: How many channels each group keeps.
Counts = dict[str, int]
#: At a level from 0 to 1; no count rises with the level.
Levels = Callable[[float], Counts]
#: From the channels kept of each group to what the network then costs.
CostOf = Callable[[Mapping[str, Any]], float]

#: The share of its channels that every group keeps of a global allocation, so that no layer vanishes.
LEAST_SHARE = 0.1


class Budget:
    """Counts of kept channels, and what they cost."""

    def __init__(self, graph: ChannelGraph, scores: Scores, align: int, cost: CostOf, whole: float | None) -> None:
        self.groups = [group for group in graph.prunable_groups if group.name in scores]
        self.scores, self.align, self._cost = scores, align, cost
        self._order = {group.name: np.argsort(-scores[group.name], kind="stable") for group in self.groups}
        self.whole = cost({}) if whole is None else whole

    def kept(self, counts: Counts) -> dict[str, NDArray[np.integer]]:
        return {name: np.sort(self._order[name][:count]) for name, count in counts.items()}

    def removed(self, counts: Counts) -> float:
        return 1 - self._cost(self.kept(counts)) / self.whole

    def aligned(self, group: ChannelGroup, wanted: float) -> int:
        """The next count that the group may keep from `wanted` up."""
        return min(group.size, max(1, int(np.ceil(wanted / self.align))) * self.align)

    def fewer(self, count: int) -> int:
        """The next count below."""
        return (count - 1) // self.align * self.align

    def neighbours(self, counts: Counts, least: Counts) -> list[Counts]:
        """One group keeps one step less, or more."""
        found = []
        for group in self.groups:
            count = counts[group.name]
            steps = (self.fewer(count), min(group.size, (count // self.align + 1) * self.align))
            found += [{**counts, group.name: step} for step in steps if least[group.name] <= step != count]
        return found


def uniform(budget: Budget) -> Levels:
    """Every group gives the same share of its channels."""
    return lambda level: {group.name: budget.aligned(group, group.size * (1 - level)) for group in budget.groups}


def equal_loss(budget: Budget, sensitivity: Sensitivity) -> Levels:
    """The level is a loss of mIoU, relative to the greatest that any group can reach; every group gives as many
    channels as cost it that loss.

    Raises UserError when the sensitivity is that of another network.
    """
    if not sensitivity.losses.keys() & budget.scores.keys():
        raise UserError("the sensitivity was measured on another network: it has none of this network's groups")
    greatest = max((loss for losses in sensitivity.losses.values() for loss in losses.values()), default=0.0)

    def count(group: ChannelGroup, level: float) -> int:
        losses = sensitivity.losses.get(group.name)
        share = level if not losses else _share_at(losses, level, max(greatest, 1e-6))
        return budget.aligned(group, group.size * (1 - share))

    return lambda level: {group.name: count(group, level) for group in budget.groups}


def _share_at(losses: Mapping[float, float], level: float, greatest: float) -> float:
    """The share whose loss is `level` x `greatest`, by lines between the measured points; past the last one a line
    runs to (1, greatest).
    """
    shares = np.array([0.0, *sorted(losses), 1.0])
    curve = np.maximum.accumulate([0.0, *(losses[share] for share in sorted(losses)), greatest])
    curve = curve + np.arange(len(curve)) * 1e-9  # strictly rising, so that it can be inverted
    return float(np.interp(level * curve[-1], curve, shares))


def everywhere(budget: Budget) -> Levels:
    """Blocks of `align` channels go in the order of their mean score for what one of their channels costs, wherever
    they are, until each group is at its least.

    What a channel costs is what goes when its group alone loses one block. Groups whose channels cost nothing (those of
    auxiliary heads, which are not deployed) keep all.
    """
    full = {group.name: group.size for group in budget.groups}
    blocks = []  # (score for the cost, group, what it keeps without this block and all before)
    for group in budget.groups:
        count, least, worth = group.size, budget.aligned(group, LEAST_SHARE * group.size), -np.inf
        scores = np.sort(budget.scores[group.name])
        step = group.size - max(budget.fewer(group.size), least)
        saved = budget.removed({**full, group.name: group.size - step}) - budget.removed(full) if step else 0.0
        while saved > 0 and count > least:
            fewer = max(budget.fewer(count), least)
            gone = scores[group.size - count : group.size - fewer]
            worth = max(worth, gone.mean() / (saved / step))  # never less than the block before, by a rounding either
            blocks.append((worth, group.name, fewer))
            count = fewer
    blocks.sort(key=lambda block: block[0])

    def counts(level: float) -> Counts:
        return full | {name: fewer for _, name, fewer in blocks[: round(level * len(blocks))]}

    return counts
