"""Operators on two tensors, element by element: what meets is united."""

from segslim.channels.identities import NONE, Ids
from segslim.channels.program import Operator
from segslim.channels.rules.registry import rule
from segslim.channels.walk import Walk


@rule("add", "subtract", "multiply", "divide", "maximum", "minimum", "elementwise_pow", "expand_as")
def combine(operator: Operator, walk: Walk) -> None:
    left, right = operator.input("x"), operator.input("y")
    rank = max(len(walk.shape(left)), len(walk.shape(right)))
    axis = operator.attributes.get("axis", -1)
    a, b = (_aligned(walk, name, rank, axis) for name in (left, right))
    walk.give(operator.output, _united(walk, a, b))


def _aligned(walk: Walk, name: str, rank: int, axis: int) -> tuple[Ids, tuple[int, ...]]:
    """Ids and shape with `rank` axes; Paddle 2's operators may say at which axis the smaller shape starts."""
    shape, ids = walk.shape(name), walk.full_ids(name)
    before = rank - len(shape) if axis == -1 or len(shape) == rank else axis
    after = rank - len(shape) - before
    padded = (1,) * before + ids.shape + (1,) * after
    return ids.reshape(padded), (1,) * before + tuple(shape) + (1,) * after


def _united(walk: Walk, left: tuple[Ids, tuple[int, ...]], right: tuple[Ids, tuple[int, ...]]) -> Ids:
    for (small, small_shape), (large, large_shape) in ((left, right), (right, left)):
        if _is_stretched(small_shape, large, large_shape):
            if not small.any():
                return large
            walk.pin(small)
            walk.pin(large)
            return NONE
    walk.unite(left[0], right[0])
    return left[0] if left[0].size >= right[0].size else right[0]


def _is_stretched(small_shape: tuple[int, ...], large: Ids, large_shape: tuple[int, ...]) -> bool:
    """Whether broadcasting copies the small tensor along an axis on which the other one has channels."""
    return any(s == 1 and n > 1 and ids > 1 for s, n, ids in zip(small_shape, large_shape, large.shape, strict=True))
