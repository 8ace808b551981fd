"""Matrix products: the contracted axis ends there, the others pass."""

import math

from segslim.channels.identities import NONE, Ids
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
    if any(ids.size != max(ids.shape) for ids in (a, b)):
        raise Unsupported(f"{operator.kind} with channels along several axes")
    contracted = a if a.shape[-1] > 1 else NONE
    walk.unite(contracted, b.swapaxes(-1, -2) if b.shape[-2] > 1 else NONE)
    walk.contracted.append(contracted.ravel())
    rest = [ids if ids.shape[axis] == 1 else NONE for ids, axis in ((a, -1), (b, -2))]
    ids = _remaining(walk, *rest)
    walk.cost(operator.output, math.prod(walk.shape(operator.output)) * shared, contracted, ids)
    walk.give(operator.output, ids)


def _remaining(walk: Walk, rows: Ids, columns: Ids) -> Ids:
    """The ids of a product along its batch (heads of an attention are on both sides), its rows or its columns."""
    if rows.shape == columns.shape:
        walk.unite(rows, columns)
    elif (rows.any() and columns.any()) or any(ids.ndim > 2 and max(ids.shape[:-2]) > 1 for ids in (rows, columns)):
        walk.pin(rows)
        walk.pin(columns)
        return NONE
    return rows if rows.any() else columns
