"""Matrix products: the contracted axis ends there, the others pass."""

import math

import numpy as np

from segslim.channels.identities import Ids
from segslim.channels.program import Operator
from segslim.channels.rules.registry import Unsupported, rule
from segslim.channels.walk import CONSUMES, PRODUCES, Walk


@rule("matmul", "bmm")
def multiply(operator: Operator, walk: Walk) -> None:
    left, right = operator.input("x"), operator.input("y")
    if walk.is_parameter(right) and len(walk.shape(right)) == 2:
        _linear(operator, walk, left, right)
    else:
        _product(operator, walk, left, right)


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
    walk.cost(result, math.prod(walk.shape(result)) * len(consumed), consumed, produced)
    walk.give(result, produced.reshape(*(1,) * (len(walk.shape(result)) - 1), -1))


def _product(operator: Operator, walk: Walk, left: str, right: str) -> None:
    """Two activations, (batch..., rows, shared) by (batch..., shared, columns)."""
    a, shared = walk.full_ids(left), walk.shape(left)[-2 if operator.attributes.get("transpose_x") else -1]
    b = walk.full_ids(right)
    a = a.swapaxes(-1, -2) if operator.attributes.get("transpose_x") else a
    b = b.swapaxes(-1, -2) if operator.attributes.get("transpose_y") else b
    if any(ids.size != max(ids.shape[-2:]) for ids in (a, b)):
        raise Unsupported(f"{operator.kind} with channels along its batch")
    contracted = _along(a, -1)
    walk.unite(contracted, _along(b, -2))
    walk.contracted.append(contracted)
    rows, columns = _along(a, -2), _along(b, -1)
    if rows.any() and columns.any():
        walk.pin(rows)
        walk.pin(columns)
    result = operator.output
    walk.cost(result, math.prod(walk.shape(result)) * shared, contracted, rows, columns)
    ids = rows.reshape(-1, 1) if rows.any() else columns.reshape(1, -1)
    walk.give(result, ids)


def _along(ids: Ids, axis: int) -> Ids:
    return ids.ravel() if ids.shape[axis] > 1 else np.zeros(1, np.int64)
