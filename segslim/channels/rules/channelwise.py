"""Operators that treat every channel alike and on its own: ids pass, and a channel's parameters belong to it."""

import numpy as np

from segslim.channels.identities import Ids
from segslim.channels.program import Operator
from segslim.channels.rules.registry import rule
from segslim.channels.walk import Walk

ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "hardswish", "tanh",
    "sigmoid", "hardsigmoid", "logsigmoid", "softplus", "softsign", "hardtanh", "hardshrink", "softshrink",
    "tanh_shrink", "exp", "log", "sqrt", "rsqrt", "square", "abs", "pow", "reciprocal", "sign", "floor", "ceil",
    "round", "clip", "scale", "cast", "assign", "share_data", "dropout",
)  # fmt: skip


@rule(*ACTIVATIONS)
def pass_on(operator: Operator, walk: Walk) -> None:
    for output in operator.outputs:
        walk.give(output, walk.ids(operator.input("x")))


@rule("pool2d", "pool3d", "interpolate", "max_pool2d_with_index")
def resample(operator: Operator, walk: Walk) -> None:
    """Positions of the image are mixed, so none of them may be channels."""
    source = operator.input("x")
    rank = len(walk.shape(source))
    image = set(range(1, rank)) - {operator.channel_axis % rank}
    for output in operator.outputs:
        walk.give(output, _pinned_along(walk, source, sorted(image)))


@rule("batch_norm", "instance_norm")
def normalize(operator: Operator, walk: Walk) -> None:
    source = operator.input("x")
    ids = walk.axis_ids(source, operator.channel_axis)
    for role in ("scale", "bias", "mean", "variance"):
        if role in operator.inputs:
            walk.unite(ids, walk.ids(operator.input(role)))
    walk.give(operator.output, walk.full_ids(source))


@rule("prelu")
def prelu(operator: Operator, walk: Walk) -> None:
    source, slope = operator.input("x"), operator.input("alpha")
    if np.prod(walk.shape(slope)) > 1:
        walk.unite(walk.axis_ids(source, operator.channel_axis), walk.ids(slope).ravel())
    walk.give(operator.output, walk.ids(source))


@rule("unpool")
def unpool(operator: Operator, walk: Walk) -> None:
    """Each channel goes where the indices of the same channel say."""
    walk.unite(walk.full_ids(operator.input("x")), walk.full_ids(operator.input("indices")))
    walk.give(operator.output, walk.full_ids(operator.input("x")))


@rule("grid_sample")
def sample(operator: Operator, walk: Walk) -> None:
    """The grid is the same for all channels."""
    walk.give(operator.output, _pinned_along(walk, operator.input("x"), [2, 3]))


@rule("softmax", "log_softmax")
def softmax(operator: Operator, walk: Walk) -> None:
    """Every value depends on all along the axis: those are pinned, the others pass."""
    source = operator.input("x")
    walk.give(operator.output, _pinned_along(walk, source, [operator.attributes["axis"]]))


@rule("mean", "max", "min", "sum", "amax", "amin")
def reduce(operator: Operator, walk: Walk) -> None:
    """As softmax, then the axes go or shrink to one. (A sum over channels could lose some; it is too rare to tell
    apart.)
    """
    source = operator.input("x")
    rank = len(walk.shape(source))
    axes = operator.attributes.get("axis") or range(rank)
    axes = list(range(rank)) if operator.attributes.get("reduce_all") else [axis % rank for axis in axes]
    ids = _pinned_along(walk, source, axes)
    keep = operator.attributes.get("keepdim")
    walk.give(operator.output, ids if keep else ids.squeeze(tuple(axes)))


@rule("group_norm")
def group_norm(operator: Operator, walk: Walk) -> None:
    """A group's mean and deviation depend on all its channels."""
    walk.pin_all(operator)


@rule("shape", "shape64")
def forget(operator: Operator, walk: Walk) -> None:
    """A tensor's size is no channel."""
    walk.ids(operator.input("input"))


@rule("layer_norm")
def layer_norm(operator: Operator, walk: Walk) -> None:
    source = operator.input("x")
    rank = len(walk.shape(source))
    walk.give(operator.output, _pinned_along(walk, source, list(range(operator.attributes["begin_norm_axis"], rank))))
    for role in ("scale", "bias"):
        if role in operator.inputs:
            walk.pin(walk.ids(operator.input(role)))


def _pinned_along(walk: Walk, source: str, axes: list[int]) -> Ids:
    """The ids of `source` if they do not vary along these axes; else they are pinned, and there are none."""
    ids = walk.full_ids(source)
    if all(ids.shape[axis] == 1 for axis in axes):
        return ids
    return walk.pinned(ids)
