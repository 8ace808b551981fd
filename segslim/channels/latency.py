"""What channels cost in time: measured group by group, and corrected by measuring the whole that was chosen."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, Kept
from segslim.errors import UserError
from segslim.records import read_record, write_record

FILE = "costs.json"
_log = logging.getLogger(__name__)

#: The latency removed may differ from that asked for by this fraction of all.
TOLERANCE = 0.02
ROUNDS = 5

#: From prunings (what is kept of each group) to the latency of each, in units of the unpruned network's, measured in
#: turns with it.
Measure = Callable[[Sequence[Kept]], Sequence[float]]


@dataclass(frozen=True)
class LatencyCost:
    """The latency to expect of a pruning, in units of the first network's.

    now: that of the network which is to be pruned; savings: for each group, the fraction of it that is saved where the
    group alone keeps so many channels; scale: what the fractions of several groups together are multiplied by.
    """

    now: float
    savings: Mapping[str, Mapping[int, float]]
    scale: float = 1.0

    kind: ClassVar[str] = "costs"

    def __call__(self, kept: Kept) -> float:
        """Where each group saves its fraction of what the others leave, all save 1 - (1 - a)(1 - b)...: exact for a
        convolution between two groups, too little for layers apart. `scale` makes up for that.
        """
        left = np.prod([1 - self._saved(name, len(indices)) for name, indices in kept.items()])
        return float(self.now * (1 - self.scale * (1 - left)))

    def _saved(self, group: str, count: int) -> float:
        curve = self.savings.get(group)
        return float(np.interp(count, sorted(curve), [curve[at] for at in sorted(curve)])) if curve else 0.0

    def saving(self) -> list[str]:
        """The groups that save anything at all."""
        return [group for group, curve in self.savings.items() if max(curve.values()) > 0]

    def save(self, folder: Path) -> None:
        write_record(folder, FILE, self)

    @classmethod
    def load(cls, folder: Path) -> "LatencyCost":
        value = read_record(folder, FILE)
        curves = {group: {int(count): one for count, one in curve.items()} for group, curve in value["savings"].items()}
        return cls(value["now"], curves, value["scale"])


def profile(
    graph: ChannelGraph,
    measure: Measure,
    align: int = 1,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> LatencyCost:
    """Measures each group alone at half of its channels and at the least, and all groups together at the least.

    Counts are multiples of `align`, as allocations are. Noise does not make fewer channels slower.
    """
    groups = graph.prunable_groups
    (now,) = measure([{}])
    savings = {}
    for done, group in enumerate(groups):
        least = min(align, group.size)
        half = -(-group.size // (2 * align)) * align
        counts = sorted({count for count in (half, least) if count < group.size}, reverse=True)
        if graph.flops({group.name: np.arange(least)}) == graph.flops():  # an auxiliary head's: not deployed
            counts = []
        measured = measure([{group.name: np.arange(count)} for count in counts]) if counts else []
        saved = np.maximum.accumulate([0.0, *(1 - latency / now for latency in measured)])
        savings[group.name] = dict(zip([group.size, *counts], saved.tolist(), strict=True))
        progress(done + 1, len(groups))
    cost = LatencyCost(now, savings)
    deepest = {group.name: np.arange(min(align, group.size)) for group in groups}
    return _scaled(cost, deepest, measure([deepest])[0], (0.01, 100))


def reach(
    ratio: float,
    cost: LatencyCost,
    allocate: Callable[[LatencyCost], Mapping[str, NDArray[np.integer]]],
    measure: Measure,
) -> tuple[Mapping[str, NDArray[np.integer]], float]:
    """Allocates, measures what was chosen, corrects the cost by it, and again, until `ratio` of the latency is gone to
    within 0.02; returns what is kept, and the fraction that is gone.

    Raises UserError where the first allocation does. What comes closest in 5 rounds counts, with a warning where it
    is farther.
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
        _log.info("%.3f of the latency was to go, %.3f is gone", ratio, 1 - latency)
        if abs(1 - latency - ratio) <= TOLERANCE:
            break
        cost = _scaled(cost, kept, latency, (0.5, 2))  # what disturbed one measurement, the next one mends
    kept, gone = min(tried, key=lambda one: abs(one[1] - ratio))
    if abs(gone - ratio) > TOLERANCE:
        _log.warning("%.3f of the latency was to go, and %.3f is the closest that was found", ratio, gone)
    return kept, gone


def _scaled(cost: LatencyCost, kept: Kept, latency: float, limits: tuple[float, float]) -> LatencyCost:
    """The cost that expects of `kept` the latency that was measured, if its scale need not change beyond `limits`."""
    expected = cost.now - cost(kept)
    if expected <= 0:
        return cost
    return replace(cost, scale=cost.scale * float(np.clip((cost.now - latency) / expected, *limits)))
