"""One small function for each kind of operator: how it passes on, unites, or ends the ids of channels.

To teach the graph an operator, write a rule in the file it belongs to:

    @rule("relu", "sigmoid")
    def pass_on(operator: Operator, walk: Walk) -> None:
        walk.give(operator.output, walk.ids(operator.input("x")))

A kind without a rule pins the channels that reach it, so that they are never pruned.
"""

from segslim.channels.rules import arrangement, channelwise, convolution, elementwise, products, reshaping  # noqa: F401
from segslim.channels.rules.registry import RULES

__all__ = ["RULES"]
