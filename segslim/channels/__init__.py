"""Channel pruning for any network: which channels live and die together, which are worth least, and how to remove them.

    graph = ChannelGraph.trace(network, input_shape=(1, 3, 512, 512))
    result = prune_by_ratio(network, input_shape=(1, 3, 512, 512), ratio=0.3, criterion="l1_norm", align=8)

or step by step:

    importance = score("l1_norm", graph, weights)
    kept = allocate(graph, importance, sensitivity=None, ratio=0.3, align=8)
    channels = prune(network, graph, kept)

It takes a network and arrays, and gives indices of channels. It must not know data sets, engines or the pipeline: how
mIoU and latency are measured comes in as a callable. Paddle is imported only to trace a network or to prune it.
"""

from segslim.channels.allocation import allocate
from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.importance import Importance, score
from segslim.channels.pruning import Channels, PruneResult, apply_channels, prune, prune_by_ratio
from segslim.channels.sensitivity import Sensitivity

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Channels",
    "Importance",
    "PruneResult",
    "Sensitivity",
    "allocate",
    "apply_channels",
    "prune",
    "prune_by_ratio",
    "score",
]
