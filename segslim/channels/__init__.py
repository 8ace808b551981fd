"""Channel pruning for any network: which channels live and die together, which are worth least, and how to remove them.

    graph = ChannelGraph.trace(network, input_shape=(1, 3, 512, 512))
    result = prune(network, input_shape=(1, 3, 512, 512), ratio=0.3, criterion="l1_norm", align=8)

It takes a network and arrays, and gives indices of channels. It must not know data sets, engines or the pipeline: what
a loss of accuracy or a latency is comes in as a callable. Paddle is imported only to trace a network or to shrink it.
"""

from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.pruning import PruneResult, prune
from segslim.channels.sensitivity import Sensitivity
from segslim.channels.shrink import Channels, apply_channels, shrink

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Channels",
    "PruneResult",
    "Sensitivity",
    "apply_channels",
    "prune",
    "shrink",
]
