"""Convolutions: the input's channels are consumed, the output's channels are new."""

import math

from segslim.channels.identities import Ids
from segslim.channels.program import Operator
from segslim.channels.rules.registry import rule
from segslim.channels.walk import CARRIES, CONSUMES, PRODUCES, Walk


@rule("conv2d", "depthwise_conv2d", "conv3d")
def convolve(operator: Operator, walk: Walk) -> None:
    """Weights are (outputs, inputs / groups, kernel...)."""
    source, weight, groups = _operands(operator)
    outputs, inputs, *kernel = walk.shape(weight)
    result = operator.output
    reaching = walk.axis_ids(source, operator.channel_axis)
    if groups > 1 and inputs == 1 and _may_regroup(walk, weight):
        produced = _depthwise(walk, weight, reaching, outputs // groups)
        walk.cost(result, math.prod(walk.shape(result)) * math.prod(kernel), produced)
    else:
        consumed = walk.parameter_ids(weight, 1, CONSUMES)
        produced = walk.parameter_ids(weight, 0, PRODUCES)
        _unite_groups(walk, reaching, consumed, produced, groups)
        walk.cost(result, math.prod(walk.shape(result)) * inputs * math.prod(kernel), produced, consumed)
    walk.give(result, _channels(produced, operator, len(kernel)))
    _add_bias(operator, walk, produced)


@rule("conv2d_transpose", "depthwise_conv2d_transpose")
def convolve_transposed(operator: Operator, walk: Walk) -> None:
    """Weights are (inputs, outputs / groups, kernel...)."""
    source, weight, groups = _operands(operator)
    _, outputs, *kernel = walk.shape(weight)
    reaching = walk.axis_ids(source, operator.channel_axis)
    consumed = walk.parameter_ids(weight, 0, CONSUMES)
    produced = walk.parameter_ids(weight, 1, PRODUCES)
    walk.unite(reaching, consumed)
    if groups > 1:
        _unite_rows(walk, consumed, groups)
    walk.cost(operator.output, math.prod(walk.shape(source)) * outputs * math.prod(kernel), consumed, produced)
    walk.give(operator.output, _channels(_repeated(produced, groups), operator, len(kernel)))
    _add_bias(operator, walk, _repeated(produced, groups))


def _operands(operator: Operator) -> tuple[str, str, int]:
    return operator.input("input", "x"), operator.input("filter"), operator.attributes["groups"]


def _may_regroup(walk: Walk, weight: str) -> bool:
    """A depthwise convolution loses groups with its channels, so its layer must have their number."""
    return walk.is_parameter(weight) and walk.program.parameters[weight].grouped


def _depthwise(walk: Walk, weight: str, reaching: Ids, multiplier: int) -> Ids:
    """Each input channel has `multiplier` output channels, which live and die with it."""
    carried = walk.parameter_ids(weight, 0, CARRIES)
    walk.unite(reaching.repeat(multiplier), carried)
    walk.multipliers[walk.program.parameters[weight].name] = multiplier
    return carried


def _unite_groups(walk: Walk, reaching: Ids, consumed: Ids, produced: Ids, groups: int) -> None:
    """Groups keep their number and must stay equally large: channels at the same position of every group are united."""
    walk.unite(reaching.reshape(groups, -1), consumed)
    _unite_rows(walk, produced, groups)


def _unite_rows(walk: Walk, ids: Ids, groups: int) -> None:
    rows = ids.reshape(groups, -1)
    walk.unite(rows, rows[:1])


def _repeated(ids: Ids, groups: int) -> Ids:
    return ids.reshape(1, -1).repeat(groups, axis=0).ravel()


def _channels(ids: Ids, operator: Operator, spatial: int) -> Ids:
    return ids.reshape(1, *(1,) * spatial, -1) if operator.channel_axis == -1 else ids.reshape(1, -1, *(1,) * spatial)


def _add_bias(operator: Operator, walk: Walk, produced: Ids) -> None:
    if "bias" in operator.inputs:
        walk.unite(produced, walk.ids(operator.input("bias")))
