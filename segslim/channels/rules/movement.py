"""Operators that move channels about: numpy does the same to their ids. The numbers of a reshape's target must be able
to follow the channels.
"""

import math

import numpy as np

from segslim.channels.program import AttributeSize, Extent, Operator, TensorSize
from segslim.channels.rules.elementwise import all_united, tie_to_extent
from segslim.channels.walk import Ids, Unsupported, Walk, rule


@rule("concat")
def concatenate(operator: Operator, walk: Walk) -> None:
    """Along the channels ids are concatenated; along another axis the channels of all parts are united."""
    names = operator.inputs["x"]
    axis = _number(operator.attributes["axis"]) % len(walk.shape(names[0]))
    parts = [walk.full_ids(name) for name in names]
    if all(part.size == part.shape[axis] for part in parts):
        # a part without ids (size 1) still takes as many positions as it has channels
        sizes = [walk.shape(name)[axis] for name in names]
        spread = [part.repeat(n, axis) if part.size == 1 else part for part, n in zip(parts, sizes, strict=True)]
        walk.set_ids(operator.output, np.concatenate(spread, axis))
        return
    for part in parts:
        walk.unite(parts[0], part.take([0], axis))
        walk.unite(part, part.take([0], axis))
    walk.set_ids(operator.output, max(parts, key=lambda part: part.size).take([0], axis))


@rule("transpose")
def transpose(operator: Operator, walk: Walk) -> None:
    source = operator.input("x")
    walk.set_ids(operator.output, walk.full_ids(source).transpose(operator.attributes["perm"]))


@rule("split")
def split(operator: Operator, walk: Walk) -> None:
    """Equal parts must stay equal, so channels at the same position of every part are united. Where each has a number
    of its own that can be set, they are free, but for one channel: none may become empty. Other numbers pin.
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
    elif extents := operator.attributes.get("sizes"):
        ends = np.cumsum([walk.shape(output)[axis] for output in operator.outputs])
        parts = np.split(ids, ends[:-1], axis)
        for at, (part, extent) in enumerate(zip(parts, extents, strict=True)):
            walk.pin(part.take([0], axis))
            tie_to_extent(walk, extent, part, axis, source)
            parts[at] = part if part.shape[axis] > 1 else walk.pinned(part)
    else:
        parts = [walk.pinned(ids)] * len(operator.outputs)
    for output, part in zip(operator.outputs, parts, strict=True):
        walk.set_ids(output, part)


@rule("slice", "strided_slice")
def slice_(operator: Operator, walk: Walk) -> None:
    """Ids pass unless the slice is along the channels: numbers cannot follow those, so they are pinned."""
    source = operator.input("input", "x")
    ids = walk.full_ids(source)
    axes = operator.attributes["axes"]
    if any(ids.shape[axis] > 1 for axis in axes):
        ids = walk.pinned(ids)
    dropped = tuple(operator.attributes.get("decrease_axis") or ())
    walk.set_ids(operator.output, ids.squeeze(dropped) if dropped else ids)


@rule("gather")
def gather(operator: Operator, walk: Walk) -> None:
    """Picks by numbers along one axis: along the channels these cannot follow, so they are pinned."""
    source, index = operator.input("x"), operator.input("index")
    axis = _number(operator.attributes["axis"]) % len(walk.shape(source))
    ids = walk.full_ids(source)
    walk.pin(walk.ids(index))
    if ids.shape[axis] > 1:
        ids = walk.pinned(ids)
    picked = (1,) * len(walk.shape(index))
    walk.set_ids(operator.output, ids.reshape(ids.shape[:axis] + picked + ids.shape[axis + 1 :]))


@rule("tile")
def tile(operator: Operator, walk: Walk) -> None:
    """The ids repeat where their axis does."""
    source = operator.input("x")
    times = list(operator.attributes["repeat_times"])
    ids = walk.full_ids(source)
    if len(times) != ids.ndim:
        raise Unsupported("tile to another rank")
    varied = [count if size > 1 else 1 for count, size in zip(times, ids.shape, strict=True)]
    walk.set_ids(operator.output, np.tile(ids, varied))


@rule("stack")
def stack(operator: Operator, walk: Walk) -> None:
    """Stacked tensors have one shape, so their channels are united."""
    names = operator.inputs["x"]
    axis = operator.attributes["axis"] % (len(walk.shape(names[0])) + 1)
    walk.set_ids(operator.output, np.expand_dims(all_united(walk, names), axis))


@rule("pad3d", "pad")
def pad(operator: Operator, walk: Walk) -> None:
    """Padding around the image passes ids; padding of the channels pins them."""
    source, result = operator.input("x"), operator.output
    ids = walk.full_ids(source)
    if any(size > 1 and walk.shape(source)[axis] != walk.shape(result)[axis] for axis, size in enumerate(ids.shape)):
        ids = walk.pinned(ids)
    walk.set_ids(result, ids)


@rule("pixel_shuffle")
def shuffle_pixels(operator: Operator, walk: Walk) -> None:
    """factor x factor channels become one channel, so these live and die together: neighbours, or, `strided`, those
    that are as far apart as there will be channels.
    """
    _check_layout(operator)
    ids, left = walk.axis_ids(operator.input("x"), 1), walk.shape(operator.output)[1]
    blocks = ids.reshape(-1, left).T if operator.attributes.get("strided") else ids.reshape(left, -1)
    walk.unite(blocks, blocks[:, :1])
    walk.set_ids(operator.output, blocks[:, 0].reshape(1, -1, 1, 1))


@rule("pixel_unshuffle")
def unshuffle_pixels(operator: Operator, walk: Walk) -> None:
    """Each channel becomes factor x factor channels."""
    _check_layout(operator)
    ids = walk.axis_ids(operator.input("x"), 1)
    walk.set_ids(operator.output, ids.repeat(walk.shape(operator.output)[1] // len(ids)).reshape(1, -1, 1, 1))


@rule("channel_shuffle")
def shuffle_channels(operator: Operator, walk: Walk) -> None:
    """Groups keep their number and must stay equally large."""
    _check_layout(operator)
    rows = walk.axis_ids(operator.input("x"), 1).reshape(operator.attributes["groups"], -1)
    walk.unite(rows, rows[:1])
    walk.set_ids(operator.output, rows.T.reshape(1, -1, 1, 1))


def _check_layout(operator: Operator) -> None:
    if operator.channel_axis != 1:
        raise Unsupported(f"{operator.kind} in NHWC")


def _number(value: object) -> int:
    return int(np.ravel(np.asarray(value))[0])


@rule("reshape", "view_shape")
def reshape(operator: Operator, walk: Walk) -> None:
    source, result = operator.input("x"), operator.output
    extents = walk.program.extents.get(result)
    if extents is None:  # not a call of the network's own code: Paddle reshapes a layer's bias by its own size
        extents = ("rest" if walk.is_parameter(source) else "fixed",) * len(walk.shape(result))
    _fold(walk, source, result, extents)


@rule("flatten", "squeeze", "unsqueeze")
def flatten(operator: Operator, walk: Walk) -> None:
    """No number is given, so every axis follows the channels."""
    source, result = operator.input("x"), operator.output
    _fold(walk, source, result, ("rest",) * len(walk.shape(result)))


def _fold(walk: Walk, source: str, result: str, extents: tuple[Extent, ...]) -> None:
    old, new = walk.shape(source), walk.shape(result)
    ids = walk.full_ids(source)
    blocks = _blocks(old, new)
    folded: list[int] = []
    for before, after in blocks:
        if all(ids.shape[axis] == 1 for axis in before):
            folded += [1] * len(after)
        else:  # the channels share this block with other axes, so there must be an id for every position of it
            spread = [old[axis] if axis in before else size for axis, size in enumerate(ids.shape)]
            ids = np.broadcast_to(ids, spread)
            folded += [new[axis] for axis in after]
    ids = ids.reshape(folded)
    for _, after in blocks:
        if any(ids.shape[axis] > 1 for axis in after):
            ids = _leave_one_axis_free(walk, ids, [axis for axis in after if new[axis] > 1], extents)
    for axis, extent in enumerate(extents):
        tie_to_extent(walk, extent, ids, axis, source)
    walk.set_ids(result, ids)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[range, range]]:
    """Splits both shapes into the shortest runs of axes that hold equally many elements."""
    if min((*old, *new), default=1) < 1 or math.prod(old) != math.prod(new):
        raise Unsupported("reshape of a size that is unknown while the network is traced")
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, other = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := math.prod(old[start:i])) != (b := math.prod(new[other:j])):
            i, j = (i + 1, j) if a < b else (i, j + 1)
        blocks.append((range(start, i), range(other, j)))
    return blocks


def _leave_one_axis_free(walk: Walk, ids: Ids, axes: list[int], extents: tuple[Extent, ...]) -> Ids:
    """Of the axes that channels are folded into, one may shrink; along the others, channels at the same position are
    united. The free axis is the one whose size most readily changes with the channels.
    """

    def preference(axis: int) -> int:
        extent = extents[axis]
        if isinstance(extent, TensorSize):
            return 0
        return 1 if extent == "rest" else 2 if isinstance(extent, AttributeSize) else 3

    free = min(axes, key=preference)
    if extents[free] == "fixed":
        return walk.pinned(ids)
    for axis in axes:
        if axis != free:
            walk.unite(ids, ids.take([0], axis))
            ids = ids.take([0], axis)
    return ids
