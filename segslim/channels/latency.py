"""What channels cost in time: measured group by group, and corrected by measuring the pruning that was chosen."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, Kept
from segslim.errors import UserError
from segslim.files import read_plain

_log = logging.getLogger(__name__)

#: The latency removed may differ from the ratio by this fraction of the total.
TOLERANCE = 0.02
ROUNDS = 5

#: From prunings (what is kept of each group) to the latency of each, in units of the baseline network's, measured in
#: turn with it.
Measure = Callable[[Sequence[Kept]], Sequence[float]]


@dataclass(frozen=True)
class LatencyCost:
    """The latency to expect of a pruning, in units of the baseline network's.

    unpruned: that of the network which is to be pruned (below 1 where it was pruned before); savings: for each group,
    the fraction of it that is saved where the group alone keeps so many channels; scale: what the fractions of several
    groups together are multiplied by.
    """

    unpruned: float
    savings: Mapping[str, Mapping[int, float]]
    scale: float = 1.0

    kind: ClassVar[str] = "costs"

    def __call__(self, kept: Kept) -> float:
        """The latency with these channels.

        Where each group saves its fraction of what the others leave, all save 1 - (1 - a)(1 - b)...: exact for a
        convolution between two groups, too little for layers apart. `scale` makes up for that.
        """
        left = np.prod([1 - self._saved(name, len(indices)) for name, indices in kept.items()])
        return float(self.unpruned * (1 - self.scale * (1 - left)))

    def _saved(self, group: str, count: int) -> float:
        curve = self.savings.get(group)
        return float(np.interp(count, sorted(curve), [curve[at] for at in sorted(curve)])) if curve else 0.0

    def saving_groups(self) -> list[str]:
        """The groups that save anything at all."""
        return [group for group, curve in self.savings.items() if max(curve.values()) > 0]

    def save(self, folder: Path) -> None:
        (folder / "costs.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "LatencyCost":
        value = read_plain(folder / "costs.json")
        savings = {
            group: {int(count): saved for count, saved in curve.items()} for group, curve in value["savings"].items()
        }
        return cls(value["unpruned"], savings, value["scale"])


def profile(
    graph: ChannelGraph,
    measure: Measure,
    align: int = 1,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> LatencyCost:
    """Measures each group alone at half of its channels and at the least, and all groups together at the least.

    Args:
        graph: of the network.
        measure: the latencies of prunings.
        align: counts are multiples of it, as allocations are.
        progress: called with (groups done, groups).
    """
    groups = graph.prunable_groups
    (unpruned,) = measure([{}])
    savings = {}
    for done, group in enumerate(groups, start=1):
        least = min(align, group.size)
        half = -(-group.size // (2 * align)) * align
        counts = sorted({count for count in (half, least) if count < group.size}, reverse=True)
        if graph.flops({group.name: np.arange(least)}) == graph.flops():  # an auxiliary head's: not deployed
            counts = []
        measured = measure([{group.name: np.arange(count)} for count in counts]) if counts else []
        # fewer channels are not slower: where a measurement says so, it is noise
        saved = np.maximum.accumulate([0.0, *(1 - latency / unpruned for latency in measured)])
        savings[group.name] = dict(zip([group.size, *counts], saved.tolist(), strict=True))
        progress(done, len(groups))
    deepest = {group.name: np.arange(min(align, group.size)) for group in groups}
    return _scaled(LatencyCost(unpruned, savings), deepest, measure([deepest])[0], (0.01, 100))


def reach(
    ratio: float,
    cost: LatencyCost,
    allocate: Callable[[LatencyCost], Mapping[str, NDArray[np.integer]]],
    measure: Measure,
) -> tuple[Mapping[str, NDArray[np.integer]], float]:
    """Allocates, measures the pruning, corrects the cost by it, and repeats, until `ratio` of the latency is removed to
    within 0.02.

    Args:
        ratio: the fraction of the baseline's latency to remove.
        cost: as profiled.
        allocate: the channels to keep by a cost.
        measure: the latencies of prunings.

    Returns what is kept of each group, and the fraction of the latency that is removed: the closest of 5 rounds, with a
    warning where it is farther. Raises UserError where the first allocation does.
    """
    tried: list[tuple[Mapping[str, NDArray[np.integer]], float]] = []
    for _ in range(ROUNDS):
        try:
            kept = allocate(cost)
        except UserError:
            if not tried:
                raise
            break  # by what was measured since, the ratio cannot be reached
        latency = measure([kept])[0]
        tried.append((kept, 1 - latency))
        _log.info("%.3f of the latency is removed, for a ratio of %.3f", 1 - latency, ratio)
        if abs(1 - latency - ratio) <= TOLERANCE:
            break
        # limited, so that a measurement that was disturbed can be corrected by the next
        cost = _scaled(cost, kept, latency, (0.5, 2))
    kept, removed = min(tried, key=lambda trial: abs(trial[1] - ratio))
    if abs(removed - ratio) > TOLERANCE:
        _log.warning("cannot remove %.3f of the latency: %.3f is the closest found", ratio, removed)
    return kept, removed


def _scaled(cost: LatencyCost, kept: Kept, latency: float, limits: tuple[float, float]) -> LatencyCost:
    """Changes the scale, within a factor of `limits`, so that the cost of `kept` is the latency that was measured."""
    expected = cost.unpruned - cost(kept)
    if expected <= 0:
        return cost
    return replace(cost, scale=cost.scale * float(np.clip((cost.unpruned - latency) / expected, *limits)))
