"""Pruning in one call."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.budget import allocate_aligned
from segslim.channels.criteria import Weights
from segslim.channels.graph import ChannelGraph
from segslim.channels.rules.registry import Rule
from segslim.channels.scores import score
from segslim.channels.sensitivity import Sensitivity
from segslim.channels.shrink import Channels, shrink


@dataclass(frozen=True)
class PruneResult:
    """FLOPs before and after, the channels kept of each group, and what is left of the dense network."""

    flops_before: int
    flops_after: int
    kept: Mapping[str, NDArray[np.integer]]
    channels: Channels


def prune(
    network: Any,
    input_shape: tuple[int, ...],
    ratio: float,
    criterion: str = "l1_norm",
    align: int = 1,
    sensitivity: Sensitivity | None = None,
    before: Channels | None = None,
    *,
    allocation: str | None = None,
    skip: Sequence[str] = (),
    gradients: Iterable[Weights] = (),
    seed: int = 0,
    rules: Mapping[str, Rule] | None = None,
) -> PruneResult:
    """Removes `ratio` of the FLOPs of a dygraph network, in place, counted at `input_shape` (N, C, H, W).

    criterion, skip, gradients, seed: which channels of a group go first, see `score`; allocation, sensitivity: which
    groups give more, see `allocate`; align: groups keep a multiple of this many channels, or of its half and so on
    where that misses the ratio; before: what an earlier pruning left of the dense network; rules: see `trace`.

    Rebuild the optimizer afterwards. Raises UserError when the ratio cannot be reached to within 0.01.
    """
    graph = ChannelGraph.trace(network, input_shape, rules)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    scores = score(criterion, graph, weights, gradients, seed, skip)
    kept = allocate_aligned(graph, scores, sensitivity, ratio, align, allocation=allocation)
    channels = shrink(network, graph, kept, before)
    return PruneResult(graph.flops(), graph.flops(kept), kept, channels)
