"""Operators that move channels about: numpy does the same to their ids."""

import numpy as np

from segslim.channels.identities import Ids
from segslim.channels.program import Operator
from segslim.channels.rules.registry import Unsupported, rule
from segslim.channels.walk import Walk


@rule("concat")
def concatenate(operator: Operator, walk: Walk) -> None:
    """Along the channels ids are concatenated; along another axis the channels of all parts are united."""
    names = operator.inputs["x"]
    axis = _number(operator.attributes["axis"]) % len(walk.shape(names[0]))
    parts = [walk.full_ids(name) for name in names]
    if all(part.size == part.shape[axis] for part in parts):
        walk.give(operator.output, np.concatenate([_spread(walk, name, axis) for name in names], axis))
        return
    for part in parts:
        walk.unite(parts[0], part.take([0], axis))
        walk.unite(part, part.take([0], axis))
    walk.give(operator.output, max(parts, key=lambda part: part.size).take([0], axis))


@rule("transpose")
def transpose(operator: Operator, walk: Walk) -> None:
    source = operator.input("x")
    walk.give(operator.output, walk.full_ids(source).transpose(operator.attributes["perm"]))


@rule("split")
def split(operator: Operator, walk: Walk) -> None:
    """Into equal parts: these must stay equal, so channels at the same position of every part are united. Sizes
    given as numbers pin.
    """
    source = operator.input("x")
    axis = _number(operator.attributes["axis"]) % len(walk.shape(source))
    ids = walk.full_ids(source)
    if ids.shape[axis] == 1:
        parts = [ids] * len(operator.outputs)
    elif operator.attributes.get("num"):
        parts = np.split(ids, len(operator.outputs), axis)
        for part in parts[1:]:
            walk.unite(parts[0], part)
    else:
        parts = [walk.pinned(ids)] * len(operator.outputs)
    for output, part in zip(operator.outputs, parts, strict=True):
        walk.give(output, part)


@rule("slice", "strided_slice")
def slice_(operator: Operator, walk: Walk) -> None:
    """Along other axes than the channels' ids pass; a piece cut out of the channels by numbers pins them."""
    source = operator.input("input", "x")
    ids = walk.full_ids(source)
    axes = operator.attributes["axes"]
    if any(ids.shape[axis] > 1 for axis in axes):
        ids = walk.pinned(ids)
    dropped = tuple(operator.attributes.get("decrease_axis") or ())
    walk.give(operator.output, ids.squeeze(dropped) if dropped else ids)


@rule("tile")
def tile(operator: Operator, walk: Walk) -> None:
    """The ids repeat where their axis does."""
    source = operator.input("x")
    times = list(operator.attributes["repeat_times"])
    ids = walk.full_ids(source)
    if len(times) != ids.ndim:
        raise Unsupported("tile to another rank")
    varied = [count if size > 1 else 1 for count, size in zip(times, ids.shape, strict=True)]
    walk.give(operator.output, np.tile(ids, varied))


@rule("stack")
def stack(operator: Operator, walk: Walk) -> None:
    """Stacked tensors have one shape, so their channels are united."""
    names = operator.inputs["x"]
    axis = operator.attributes["axis"] % (len(walk.shape(names[0])) + 1)
    walk.give(operator.output, np.expand_dims(_all_united(walk, names), axis))


@rule("add_n")
def add_all(operator: Operator, walk: Walk) -> None:
    """The sum of tensors of one shape."""
    walk.give(operator.output, _all_united(walk, operator.all_inputs))


def _all_united(walk: Walk, names: tuple[str, ...]) -> Ids:
    parts = [walk.full_ids(name) for name in names]
    for part in parts[1:]:
        walk.unite(parts[0], part)
    return max(parts, key=lambda part: part.size)


@rule("pad3d", "pad")
def pad(operator: Operator, walk: Walk) -> None:
    """Around the image; channels that are added pin."""
    source, result = operator.input("x"), operator.output
    ids = walk.full_ids(source)
    if any(size > 1 and walk.shape(source)[axis] != walk.shape(result)[axis] for axis, size in enumerate(ids.shape)):
        ids = walk.pinned(ids)
    walk.give(result, ids)


@rule("pixel_shuffle")
def shuffle_pixels(operator: Operator, walk: Walk) -> None:
    """Blocks of factor x factor channels become one channel, and stay whole."""
    _check_layout(operator)
    blocks = walk.axis_ids(operator.input("x"), 1).reshape(walk.shape(operator.output)[1], -1)
    walk.unite(blocks, blocks[:, :1])
    walk.give(operator.output, blocks[:, 0].reshape(1, -1, 1, 1))


@rule("pixel_unshuffle")
def unshuffle_pixels(operator: Operator, walk: Walk) -> None:
    """Each channel becomes factor x factor channels."""
    _check_layout(operator)
    ids = walk.axis_ids(operator.input("x"), 1)
    walk.give(operator.output, ids.repeat(walk.shape(operator.output)[1] // len(ids)).reshape(1, -1, 1, 1))


@rule("channel_shuffle")
def shuffle_channels(operator: Operator, walk: Walk) -> None:
    """Groups keep their number and must stay equally large."""
    _check_layout(operator)
    rows = walk.axis_ids(operator.input("x"), 1).reshape(operator.attributes["groups"], -1)
    walk.unite(rows, rows[:1])
    walk.give(operator.output, rows.T.reshape(1, -1, 1, 1))


def _check_layout(operator: Operator) -> None:
    if operator.channel_axis != 1:
        raise Unsupported(f"{operator.kind} in NHWC")


def _spread(walk: Walk, name: str, axis: int) -> Ids:
    """The ids of a tensor with one entry for every position on `axis`."""
    ids = walk.full_ids(name)
    return np.repeat(ids, walk.shape(name)[axis], axis) if ids.shape[axis] == 1 else ids


def _number(value: object) -> int:
    return int(np.ravel(np.asarray(value))[0])
