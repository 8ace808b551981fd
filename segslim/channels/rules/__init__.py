"""One small function for each kind of operator: how it passes on, unites, or ends the ids of channels.

To teach the graph an operator, write a rule in the file it belongs to:

    @rule("relu", "sigmoid")
    def pass_on(operator: Operator, walk: Walk) -> None:
        walk.set_ids(operator.output, walk.ids(operator.input("x")))

A kind without a rule pins the channels that reach it, so that they are never pruned.
"""

from segslim.channels.rules import elementwise, layers, movement  # noqa: F401
from segslim.channels.walk import RULES, Rule, Unsupported, rule

__all__ = ["RULES", "Rule", "Unsupported", "rule"]
