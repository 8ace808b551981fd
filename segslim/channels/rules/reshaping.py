"""Reshapes: channels are folded, unfolded or left alone, and the numbers of the target must be able to follow them."""

import math

import numpy as np

from segslim.channels.identities import NONE, Ids
from segslim.channels.program import Extent, Follows, Operator, Stored
from segslim.channels.rules.registry import rule
from segslim.channels.walk import Walk


@rule("reshape", "view_shape")
def reshape(operator: Operator, walk: Walk) -> None:
    source, result = operator.input("x"), operator.output
    extents = walk.extents(result)
    if extents is None:  # not asked for by the network itself: a layer's bias, by its own size
        extents = ("rest" if walk.is_parameter(source) else "fixed",) * len(walk.shape(result))
    _fold(walk, source, result, extents)


@rule("flatten", "squeeze", "unsqueeze")
def follow(operator: Operator, walk: Walk) -> None:
    """No number is given, so every axis follows."""
    source, result = operator.input("x"), operator.output
    _fold(walk, source, result, ("rest",) * len(walk.shape(result)))


def _fold(walk: Walk, source: str, result: str, extents: tuple[Extent, ...]) -> None:
    old, new = walk.shape(source), walk.shape(result)
    ids = walk.full_ids(source)
    folded = []
    for before, after in _blocks(old, new):
        if all(ids.shape[axis] == 1 for axis in before):
            folded += [1] * len(after)
        else:
            spread = [old[axis] if axis in before else size for axis, size in enumerate(ids.shape)]
            ids = np.broadcast_to(ids, spread)
            folded += [new[axis] for axis in after]
    ids = ids.reshape(folded)
    for _, after in _blocks(old, new):
        if any(ids.shape[axis] > 1 for axis in after):
            ids = _leave_one_axis_free(walk, ids, [axis for axis in after if new[axis] > 1], extents)
    for axis, extent in enumerate(extents):
        _follow(walk, extent, ids, axis, source)
    walk.give(result, ids)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[range, range]]:
    """Splits both shapes into the shortest runs of axes that hold equally many elements."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, other = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := math.prod(old[start:i])) != (b := math.prod(new[other:j])):
            i, j = (i + 1, j) if a < b else (i, j + 1)
        blocks.append((range(start, i), range(other, j)))
    return blocks


def _leave_one_axis_free(walk: Walk, ids: Ids, axes: list[int], extents: tuple[Extent, ...]) -> Ids:
    """Of the axes that channels are folded into, one may shrink; along the others, channels of the same position
    are united.
    """
    free = min(axes, key=lambda axis: _rank(extents[axis]))
    if extents[free] == "fixed":
        return walk.pinned(ids)
    for axis in axes:
        if axis != free:
            walk.unite(ids, ids.take([0], axis))
            ids = ids.take([0], axis)
    return ids


def _rank(extent: Extent) -> int:
    """Which number of a target is sooner the one that changes with the channels."""
    return 0 if isinstance(extent, Follows) else 1 if extent == "rest" else 2 if isinstance(extent, Stored) else 3


def _follow(walk: Walk, extent: Extent, ids: Ids, axis: int, source: str) -> None:
    """Ties the channels along one axis of a reshape's result to where its size was read."""
    along = ids.ravel() if ids.shape[axis] > 1 else NONE
    if isinstance(extent, Stored):
        walk.stored.append((extent, along))
    if not isinstance(extent, Follows):
        return
    theirs = walk.full_ids(extent.tensor)
    theirs = walk.axis_ids(extent.tensor, extent.axis) if theirs.shape[extent.axis] > 1 else NONE
    if extent.tensor == source and along.size > 1:
        return
    long, short = (theirs, along) if theirs.size >= along.size else (along, theirs)
    if long.size % short.size:
        walk.pin(long)
        walk.pin(short)
    else:
        walk.unite(long.reshape(-1, short.size), short)
