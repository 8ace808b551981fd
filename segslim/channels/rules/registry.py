"""The registry of rules by kind of operator."""

from collections.abc import Callable

from segslim.channels.program import Operator
from segslim.channels.walk import Walk

Rule = Callable[[Operator, Walk], None]
RULES: dict[str, Rule] = {}


class Unsupported(Exception):
    """Raised by a rule that cannot treat this case of its operator; names the case. The channels are pinned, as
    without a rule.
    """


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule for these kinds of operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register
