"""Operators without weights that treat every channel on its own, or every element: ids pass, and where two tensors
meet they are united.
"""

from segslim.channels.program import AttributeSize, Extent, Operator, TensorSize
from segslim.channels.walk import NONE, Ids, Walk, rule

ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "hardswish", "tanh",
    "sigmoid", "hardsigmoid", "logsigmoid", "softplus", "softsign", "hardtanh", "hardshrink", "softshrink",
    "tanh_shrink", "exp", "log", "sqrt", "rsqrt", "square", "abs", "pow", "reciprocal", "sign", "floor", "ceil",
    "round", "clip", "scale", "cast", "assign", "share_data", "dropout",
)  # fmt: skip


@rule(*ACTIVATIONS)
def pass_on(operator: Operator, walk: Walk) -> None:
    for output in operator.outputs:
        walk.set_ids(output, walk.ids(operator.input("x")))


@rule("add", "subtract", "multiply", "divide", "maximum", "minimum", "elementwise_pow", "expand_as")
def combine(operator: Operator, walk: Walk) -> None:
    """Two tensors, broadcast against each other: the ids that meet are united."""
    names = operator.input("x"), operator.input("y")
    rank = max(len(walk.shape(name)) for name in names)
    axis = operator.attributes.get("axis", -1)
    sides = []
    for name in names:
        shape, ids = walk.shape(name), walk.full_ids(name)
        # Paddle 2's operators may say at which axis the smaller shape starts
        before = rank - len(shape) if axis == -1 or len(shape) == rank else axis
        ones_before, ones_after = (1,) * before, (1,) * (rank - len(shape) - before)
        sides.append((ids.reshape(ones_before + ids.shape + ones_after), ones_before + tuple(shape) + ones_after))
    (left, left_shape), (right, right_shape) = sides
    stretched = _is_stretched(left_shape, right, right_shape), _is_stretched(right_shape, left, left_shape)
    if any(stretched):
        # one tensor is copied along the other's channels, so its own ids, if any, cannot follow
        stays, passes = (left, right) if stretched[0] else (right, left)
        walk.set_ids(operator.output, passes if not stays.any() else NONE)
        if stays.any():
            walk.pin(stays)
            walk.pin(passes)
        return
    walk.unite(left, right)
    walk.set_ids(operator.output, left if left.size >= right.size else right)


def _is_stretched(small_shape: tuple[int, ...], large: Ids, large_shape: tuple[int, ...]) -> bool:
    """Whether broadcasting copies the small tensor along an axis on which the other one has channels."""
    return any(s == 1 and n > 1 and ids > 1 for s, n, ids in zip(small_shape, large_shape, large.shape, strict=True))


@rule("add_n")
def add_all(operator: Operator, walk: Walk) -> None:
    """The sum of tensors of one shape."""
    walk.set_ids(operator.output, all_united(walk, operator.all_inputs))


def all_united(walk: Walk, names: tuple[str, ...]) -> Ids:
    """Unites the ids of tensors of one shape, and returns them."""
    parts = [walk.full_ids(name) for name in names]
    for part in parts[1:]:
        walk.unite(parts[0], part)
    return max(parts, key=lambda part: part.size)


def pinned_along(walk: Walk, source: str, axes: list[int]) -> Ids:
    """The ids of `source` if they do not vary along these axes; else they are pinned, and there are none."""
    ids = walk.full_ids(source)
    return ids if all(ids.shape[axis] == 1 for axis in axes) else walk.pinned(ids)


@rule("pool2d", "pool3d", "interpolate", "max_pool2d_with_index", "grid_sample")
def resample(operator: Operator, walk: Walk) -> None:
    """Positions of the image are mixed, so none of them may be channels."""
    source = operator.input("x")
    rank = len(walk.shape(source))
    image = set(range(1, rank)) - {operator.channel_axis % rank}
    for output in operator.outputs:
        walk.set_ids(output, follow_extents(walk, source, output, pinned_along(walk, source, sorted(image))))


@rule("expand")
def expand(operator: Operator, walk: Walk) -> None:
    """Copies along axes of size 1, so none of them may be channels, and new ones in front."""
    source, result = operator.input("x"), operator.output
    old, new = walk.shape(source), walk.shape(result)
    ids = walk.full_ids(source)
    front = (1,) * (len(new) - len(old))
    stretched = any(size > 1 and a != b for size, a, b in zip(ids.shape, old, new[len(front) :], strict=True))
    if stretched or result not in walk.program.extents:  # a number that is not known to follow the channels
        ids = walk.pinned(ids)
    walk.set_ids(result, follow_extents(walk, source, result, ids.reshape(front + ids.shape)))


@rule("unpool")
def unpool(operator: Operator, walk: Walk) -> None:
    """Each channel goes where the indices of the same channel say."""
    walk.unite(walk.full_ids(operator.input("x")), walk.full_ids(operator.input("indices")))
    walk.set_ids(operator.output, walk.full_ids(operator.input("x")))


def follow_extents(walk: Walk, source: str, result: str, ids: Ids) -> Ids:
    """The ids of `result`, an operator's that was given its size as numbers; pinned where one of them cannot follow."""
    extents = walk.program.extents.get(result, ())
    if any(extent == "fixed" and size > 1 for extent, size in zip(extents, ids.shape, strict=False)):
        return walk.pinned(ids)
    for axis, extent in enumerate(extents):
        tie_to_extent(walk, extent, ids, axis, source)
    return ids


def tie_to_extent(walk: Walk, extent: Extent, ids: Ids, axis: int, source: str) -> None:
    """Ties the channels along one axis of a result to the tensor or attribute that its size was read from."""
    along = ids.ravel() if ids.shape[axis] > 1 else NONE
    if isinstance(extent, AttributeSize):
        walk.attributes.append((extent, along))
    if not isinstance(extent, TensorSize):
        return
    read = walk.full_ids(extent.tensor)
    read = walk.axis_ids(extent.tensor, extent.axis) if read.shape[extent.axis] > 1 else NONE
    if extent.tensor == source and along.size > 1:
        return
    long, short = (read, along) if read.size >= along.size else (along, read)
    if long.size % short.size:
        walk.pin(long)
        walk.pin(short)
    else:  # the number is a multiple or a fraction of the size: positions that fall together are united
        walk.unite(long.reshape(-1, short.size), short)


@rule("softmax", "log_softmax")
def softmax(operator: Operator, walk: Walk) -> None:
    """Every value depends on all along the axis: those are pinned, the others pass."""
    walk.set_ids(operator.output, pinned_along(walk, operator.input("x"), [operator.attributes["axis"]]))


@rule("mean", "max", "min", "sum", "amax", "amin")
def reduce(operator: Operator, walk: Walk) -> None:
    """As softmax, then the axes go or shrink to one. (A sum over channels could lose some; it is too rare to tell
    apart.)
    """
    source = operator.input("x")
    rank = len(walk.shape(source))
    axes = operator.attributes.get("axis") or range(rank)
    axes = list(range(rank)) if operator.attributes.get("reduce_all") else [axis % rank for axis in axes]
    ids = pinned_along(walk, source, axes)
    walk.set_ids(operator.output, ids if operator.attributes.get("keepdim") else ids.squeeze(tuple(axes)))


@rule("shape", "shape64")
def read_shape(operator: Operator, walk: Walk) -> None:
    """A tensor's size is no channel."""
    walk.ids(operator.input("input"))
