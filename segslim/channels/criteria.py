"""How much a channel is worth, judged by the weights alone. A criterion gives every channel of every group a score;
the least go first.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.errors import UserError

Weights = Mapping[str, NDArray[np.floating]]
Scores = dict[str, NDArray[np.floating]]


def l1_norm(group: ChannelGroup, weights: Weights) -> NDArray[np.floating]:
    """The L1 norm of the filters that make a channel (Li et al., Pruning Filters for Efficient ConvNets, 2017).

    Where several layers make it (they are summed, or normalized together), each layer's norms are first divided by
    their mean, so that all have an equal say.
    """
    total = np.zeros(group.size)
    for member in group.producers:
        rows = np.moveaxis(np.asarray(weights[member.parameter], np.float64), member.axis, 0)
        norms = np.abs(rows).reshape(len(rows), -1).sum(1)
        mine = member.index >= 0
        sums = np.bincount(member.index[mine], norms[mine], group.size)
        total += sums / max(sums.mean(), np.finfo(float).tiny)
    return total / len(group.producers)


CRITERIA: Mapping[str, Callable[[ChannelGroup, Weights], NDArray[np.floating]]] = {"l1_norm": l1_norm}


def score(criterion: str, graph: ChannelGraph, weights: Weights) -> Scores:
    """Scores every channel of every prunable group; `weights` are the network's, by state-dict name.

    Raises UserError for an unknown criterion.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion {criterion!r} is unknown: choose from {', '.join(CRITERIA)}")
    return {group.name: CRITERIA[criterion](group, weights) for group in graph.prunable_groups}
