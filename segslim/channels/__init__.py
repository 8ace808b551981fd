"""Channel pruning for any network: which channels live and die together, which are worth least, and how to remove them."""

from segslim.channels.graph import ChannelGraph, ChannelGroup

__all__ = ["ChannelGraph", "ChannelGroup"]
