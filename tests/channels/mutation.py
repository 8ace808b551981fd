"""Breaks a rule of the channel graph in ways that fit any rule, to see whether a proof notices."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.channels.rules import RULES
from segslim.channels.walk import Walk


class _MutatedWalk:
    """A walk with one method replaced, for one rule."""

    def __init__(self, walk: Walk, method: str, replacement: Callable[..., Any]) -> None:
        self._walk, self._method, self._replacement = walk, method, replacement

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._walk, name)
        if name != self._method:
            return original
        return lambda *arguments: self._replacement(original, *arguments)


def rolled(set_ids: Callable[..., None], tensor: str, ids: Any) -> None:
    """Each channel gets the id of its neighbour."""
    longest = int(np.argmax(ids.shape)) if ids.ndim else None
    set_ids(tensor, ids if longest is None else np.roll(ids, 1, longest))


def nothing(original: Callable[..., None], *arguments: Any) -> None:
    """Channels that must go together are separate; channels that must stay may go."""


def none_left(pinned: Callable[..., Any], ids: Any) -> Any:
    """Ids end here, but nothing is pinned."""
    return np.zeros((1,) * ids.ndim, np.int64)


AS_AN_ACTIVATION = "passes the first input's ids on"
MUTATIONS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "sets a neighbour's ids": ("set_ids", rolled),
    "unites nothing": ("unite", nothing),
    "pins nothing": ("pin", nothing),
    "pins nothing where ids end": ("pinned", none_left),
    AS_AN_ACTIVATION: ("", nothing),
}


@contextmanager
def broken(function: Callable[..., None], mutation: str) -> Iterator[None]:
    """Replaces `function` by a broken rule, for all kinds of operators that it is registered for, within the block."""
    before = dict(RULES)

    def mutant(operator: Any, walk: Walk) -> None:
        if mutation == AS_AN_ACTIVATION:
            walk.set_ids(operator.output, walk.full_ids(operator.input("x", "input")))
        else:
            function(operator, _MutatedWalk(walk, *MUTATIONS[mutation]))  # type: ignore[arg-type]

    RULES.update({kind: mutant for kind, rule in before.items() if rule is function})
    try:
        yield
    finally:
        RULES.update(before)
