"""Layers with weights: convolutions and linear layers read channels and make new ones; norms carry them."""

import math

import numpy as np

from segslim.channels.program import Operator
from segslim.channels.rules.elementwise import pinned_along
from segslim.channels.walk import CARRIES, CONSUMES, NONE, PRODUCES, Ids, Unsupported, Walk, rule


@rule("conv2d", "depthwise_conv2d", "conv3d")
def convolve(operator: Operator, walk: Walk) -> None:
    """Weights are (outputs, inputs / groups, kernel...)."""
    source, weight, groups = operator.input("input", "x"), operator.input("filter"), operator.attributes["groups"]
    outputs, inputs, *kernel = walk.shape(weight)
    dense = math.prod(walk.shape(operator.output)) * inputs * math.prod(kernel)
    reaching = walk.axis_ids(source, operator.channel_axis)
    parameter = walk.program.parameters.get(weight)
    # a depthwise convolution loses groups with its channels, so its layer must have their number to set
    if groups > 1 and inputs == 1 and parameter is not None and parameter.grouped:
        # each input channel has `multiplier` output channels, which live and die with it
        produced, multiplier = walk.parameter_ids(weight, 0, CARRIES), outputs // groups
        walk.unite(reaching.repeat(multiplier), produced)
        walk.multipliers[parameter.name] = multiplier
        walk.add_cost(operator.output, dense, produced)
    else:
        consumed = walk.parameter_ids(weight, 1, CONSUMES)
        produced = walk.parameter_ids(weight, 0, PRODUCES)
        walk.unite(reaching.reshape(groups, -1), consumed)
        _unite_groups(walk, produced, groups)
        walk.add_cost(operator.output, dense, produced, consumed)
    _set_channels(operator, walk, produced, len(kernel))


@rule("conv2d_transpose", "depthwise_conv2d_transpose")
def convolve_transposed(operator: Operator, walk: Walk) -> None:
    """Weights are (inputs, outputs / groups, kernel...)."""
    source, weight, groups = operator.input("input", "x"), operator.input("filter"), operator.attributes["groups"]
    _, outputs, *kernel = walk.shape(weight)
    consumed = walk.parameter_ids(weight, 0, CONSUMES)
    produced = walk.parameter_ids(weight, 1, PRODUCES)
    walk.unite(walk.axis_ids(source, operator.channel_axis), consumed)
    _unite_groups(walk, consumed, groups)
    walk.add_cost(operator.output, math.prod(walk.shape(source)) * outputs * math.prod(kernel), consumed, produced)
    # the groups share the axis of outputs, so every group has the same output ids
    _set_channels(operator, walk, np.tile(produced, groups), len(kernel))


def _unite_groups(walk: Walk, ids: Ids, groups: int) -> None:
    """Groups keep their number and must stay equally large: channels at the same position of each are united."""
    if groups > 1:
        rows = ids.reshape(groups, -1)
        walk.unite(rows, rows[:1])


def _set_channels(operator: Operator, walk: Walk, ids: Ids, spatial: int) -> None:
    image = (1,) * spatial
    walk.set_ids(operator.output, ids.reshape((1, *image, -1) if operator.channel_axis == -1 else (1, -1, *image)))
    if "bias" in operator.inputs:
        walk.unite(ids, walk.ids(operator.input("bias")))


@rule("matmul", "bmm")
def multiply_matrices(operator: Operator, walk: Walk) -> None:
    left, right = operator.input("x"), operator.input("y")
    if walk.is_parameter(right) and len(walk.shape(right)) == 2:
        _linear(operator, walk, left, right)
    else:
        _product_of_activations(operator, walk, left, right)


def _linear(operator: Operator, walk: Walk, source: str, weight: str) -> None:
    """A linear layer's weight is (inputs, outputs)."""
    result = operator.output
    consumer, producer = (1, 0) if operator.attributes.get("transpose_y") else (0, 1)
    consumed = walk.parameter_ids(weight, consumer, CONSUMES)
    produced = walk.parameter_ids(weight, producer, PRODUCES)
    if operator.attributes.get("transpose_x"):
        walk.pin(walk.ids(source))
        walk.pin(consumed)
    else:
        walk.unite(walk.axis_ids(source, -1), consumed)
    walk.add_cost(result, math.prod(walk.shape(result)) * len(consumed), consumed, produced)
    walk.set_ids(result, produced.reshape(*(1,) * (len(walk.shape(result)) - 1), -1))


def _product_of_activations(operator: Operator, walk: Walk, left: str, right: str) -> None:
    """(batch..., rows, shared) by (batch..., shared, columns): the shared axis ends here, the others pass."""
    transposed = operator.attributes.get("transpose_x")
    shared = walk.shape(left)[-2 if transposed else -1]
    a, b = walk.full_ids(left), walk.full_ids(right)
    a = a.swapaxes(-1, -2) if transposed else a
    b = b.swapaxes(-1, -2) if operator.attributes.get("transpose_y") else b
    if any(ids.size != max(ids.shape) for ids in (a, b)):
        raise Unsupported(f"{operator.kind} with channels along several axes")
    contracted = a if a.shape[-1] > 1 else NONE
    walk.unite(contracted, b.swapaxes(-1, -2) if b.shape[-2] > 1 else NONE)
    walk.contracted.append(contracted.ravel())

    rows, columns = a if a.shape[-1] == 1 else NONE, b if b.shape[-2] == 1 else NONE
    ids = rows if rows.any() else columns
    if rows.shape == columns.shape:  # along the batch, as the heads of an attention, channels are on both sides
        walk.unite(rows, columns)
    elif (rows.any() and columns.any()) or any(i.ndim > 2 and max(i.shape[:-2]) > 1 for i in (rows, columns)):
        walk.pin(rows)
        walk.pin(columns)
        ids = NONE
    walk.add_cost(operator.output, math.prod(walk.shape(operator.output)) * shared, contracted, ids)
    walk.set_ids(operator.output, ids)


@rule("einsum")
def einsum(operator: Operator, walk: Walk) -> None:
    """Axes of one letter are one axis: their channels are united, and end where the result has not that letter."""
    left, _, right = operator.attributes["equation"].partition("->")
    terms, names = left.split(","), operator.inputs["x"]
    letters = "".join(terms)
    if not right or not letters.isalpha() or any(len(set(term)) < len(term) for term in terms):
        raise Unsupported("einsum of an equation with dots, a repeated letter or no result")
    along: dict[str, Ids] = {}
    sizes = {
        letter: size
        for name, term in zip(names, terms, strict=True)
        for letter, size in zip(term, walk.shape(name), strict=True)
    }
    for name, term in zip(names, terms, strict=True):
        ids = walk.full_ids(name)
        if ids.size != max(ids.shape, default=1):
            raise Unsupported("einsum with channels along several axes")
        for axis, letter in enumerate(term):
            own = ids.ravel() if ids.shape[axis] > 1 else NONE
            walk.unite(along.setdefault(letter, own), own)
            along[letter] = own if own.size > along[letter].size else along[letter]
    ended = [along[letter] for letter in along if letter not in right]
    walk.contracted += [ids.ravel() for ids in ended if ids.size > 1]
    varied = [letter for letter in right if along[letter].size > 1]
    for letter in varied[1:]:  # one array of ids varies along one axis
        walk.pin(along[letter])
    walk.add_cost(operator.output, math.prod(sizes.values()), *along.values())
    shape = [-1 if letter == (varied or [""])[0] else 1 for letter in right]
    walk.set_ids(operator.output, along[varied[0]].reshape(shape) if varied else NONE)


@rule("batch_norm", "instance_norm")
def normalize(operator: Operator, walk: Walk) -> None:
    """Every channel has its own scale, bias and statistics."""
    source = operator.input("x")
    ids = walk.axis_ids(source, operator.channel_axis)
    for role in ("scale", "bias", "mean", "variance"):
        if role in operator.inputs:
            walk.unite(ids, walk.ids(operator.input(role)))
    walk.set_ids(operator.output, walk.full_ids(source))


@rule("layer_norm")
def layer_norm(operator: Operator, walk: Walk) -> None:
    """A position's mean and deviation depend on all its channels."""
    source = operator.input("x")
    normalized = list(range(operator.attributes["begin_norm_axis"], len(walk.shape(source))))
    walk.set_ids(operator.output, pinned_along(walk, source, normalized))
    for role in ("scale", "bias"):
        if role in operator.inputs:
            walk.pin(walk.ids(operator.input(role)))


@rule("group_norm")
def group_norm(operator: Operator, walk: Walk) -> None:
    """A group's mean and deviation depend on all its channels."""
    walk.pin_all(operator)


@rule("prelu")
def prelu(operator: Operator, walk: Walk) -> None:
    source, slope = operator.input("x"), operator.input("alpha")
    if np.prod(walk.shape(slope)) > 1:  # a slope for each channel
        walk.unite(walk.axis_ids(source, operator.channel_axis), walk.ids(slope).ravel())
    walk.set_ids(operator.output, walk.ids(source))
