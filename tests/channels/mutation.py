"""Breaks a rule of the channel graph in ways that fit any rule, to see whether a proof notices."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.channels.rules import RULES
from segslim.channels.walk import Walk


class _Meddled:
    """A walk of which one method does something else for the rule that is given it."""

    def __init__(self, walk: Walk, method: str, instead: Callable[..., Any]) -> None:
        self._walk, self._method, self._instead = walk, method, instead

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._walk, name)
        if name != self._method:
            return original
        return lambda *arguments: self._instead(original, *arguments)


def rolled(give: Callable[..., None], tensor: str, ids: Any) -> None:
    """Each channel is taken for its neighbour."""
    longest = int(np.argmax(ids.shape)) if ids.ndim else None
    give(tensor, ids if longest is None else np.roll(ids, 1, longest))


def nothing(original: Callable[..., None], *arguments: Any) -> None:
    """What must go together does not; what must stay may go."""


def none_left(pinned: Callable[..., Any], ids: Any) -> Any:
    """Ids end here, but nothing is pinned."""
    return np.zeros((1,) * ids.ndim, np.int64)


AS_AN_ACTIVATION = "passes the first input's ids on"
MUTATIONS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "gives a neighbour's ids": ("set_ids", rolled),
    "unites nothing": ("unite", nothing),
    "pins nothing": ("pin", nothing),
    "pins nothing where ids end": ("pinned", none_left),
    AS_AN_ACTIVATION: ("", nothing),
}


@contextmanager
def broken(function: Callable[..., None], mutation: str) -> Iterator[None]:
    """Within it every kind of operator that `function` is the rule of has it broken."""
    before = dict(RULES)

    def mutant(operator: Any, walk: Walk) -> None:
        if mutation == AS_AN_ACTIVATION:
            walk.set_ids(operator.output, walk.full_ids(operator.input("x", "input")))
        else:
            function(operator, _Meddled(walk, *MUTATIONS[mutation]))  # type: ignore[arg-type]

    RULES.update({kind: mutant for kind, rule in before.items() if rule is function})
    try:
        yield
    finally:
        RULES.update(before)
