"""Carries channel ids through a program, operator by operator; the rules say how each kind of operator does it.

Every tensor has an id array that broadcasts to its shape: (1, C, 1, 1) for a feature map whose channels have ids,
(1, 1, k, 1, 1) after they were folded into groups of k, () where there are none. So numpy itself does what an operator
does.
"""

from dataclasses import dataclass

import numpy as np

from segslim.channels.identities import NONE, Identities, Ids
from segslim.channels.program import Extent, Operator, Program, Stored
from segslim.errors import UserError

#: What a parameter's axis is to its channels.
PRODUCES, CONSUMES, CARRIES = "produces", "consumes", "carries"


@dataclass(frozen=True)
class Slot:
    """One axis of a parameter, and the id of each position on it."""

    parameter: str
    axis: int
    ids: Ids
    role: str


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one operator: `dense`, times the kept share of each of these id arrays."""

    dense: int
    factors: tuple[Ids, ...]


class Walk:
    """What the rules work on: the ids of tensors so far, and everything noted on the way."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.identities = Identities()
        self.slots: dict[tuple[str, int], Slot] = {}
        self.costs: list[Cost] = []
        self.multipliers: dict[str, int] = {}
        self.stored: list[tuple[Stored, Ids]] = []
        self.contracted: list[Ids] = []
        self._deployed = program.deployed()
        self._ids: dict[str, Ids] = {}
        self._read: set[str] = set()

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.program.shapes[tensor]

    def ids(self, tensor: str) -> Ids:
        """The ids that `tensor` carries. A vector parameter gets ids of its own; any other that comes here is not
        its layer's alone.
        """
        self._read.add(tensor)
        if self.is_parameter(tensor) and tensor not in self._ids:
            shape = self.shape(tensor)
            long = [axis for axis, size in enumerate(shape) if size > 1]
            own = [self.parameter_ids(tensor, axis, CARRIES) for axis in long]
            if len(long) > 1:
                for ids in own:
                    self.pin(ids)
            self._ids[tensor] = _along(own[0], long[0], len(shape)) if len(long) == 1 else NONE
        return self._ids.get(tensor, NONE)

    def full_ids(self, tensor: str) -> Ids:
        """The ids of `tensor` with one axis for each of its own (of size 1 where the ids do not vary)."""
        ids = self.ids(tensor)
        return ids.reshape((1,) * (len(self.shape(tensor)) - ids.ndim) + ids.shape)

    def give(self, tensor: str, ids: Ids) -> None:
        """Says which ids `tensor` carries; they must broadcast to its shape."""
        if (shape := self.program.shapes.get(tensor)) is not None and ids.any():
            np.broadcast_to(ids, shape)
        self._ids[tensor] = ids

    def axis_ids(self, tensor: str, axis: int) -> Ids:
        """The ids along one axis, one a position. Ids that vary along another axis as well are pinned."""
        ids = self.full_ids(tensor)
        axis %= ids.ndim
        if ids.size != ids.shape[axis]:
            self.pin(ids)
            ids = NONE
        return np.broadcast_to(ids.ravel(), self.shape(tensor)[axis])

    def parameter_ids(self, tensor: str, axis: int, role: str) -> Ids:
        """The ids along an axis of a parameter; pinned if it is no parameter of the network's own, or the only
        position there.
        """
        parameter = self.program.parameters.get(tensor)
        if parameter is None:
            self.pin(self.ids(tensor))
        self._read.add(tensor)
        if parameter is None or parameter.shape[axis] == 1:
            return np.zeros(self.shape(tensor)[axis], np.int64)
        key = (parameter.name, axis)
        if key not in self.slots:
            self.slots[key] = Slot(parameter.name, axis, self.identities.fresh(parameter.shape[axis]), role)
        return self.slots[key].ids

    def is_parameter(self, tensor: str) -> bool:
        return tensor in self.program.parameters

    def unite(self, left: Ids, right: Ids) -> None:
        if left.any() or right.any():
            self.identities.unite(left, right)

    def pin(self, ids: Ids) -> None:
        if ids.any():
            self.identities.pin(ids)

    def pinned(self, ids: Ids) -> Ids:
        """Pins ids, and returns an array of as many axes that has none."""
        self.pin(ids)
        return np.zeros((1,) * ids.ndim, np.int64)

    def pin_unread(self, operator: Operator) -> None:
        """Pins the ids of inputs that the operator's rule had no use for, and forgets which were read."""
        for tensor in set(operator.all_inputs) - self._read:
            self.pin(self.ids(tensor))
        self._read.clear()

    def pin_all(self, operator: Operator) -> bool:
        """Pins all ids that reach an operator; its outputs have none. Tells whether there were any."""
        reaching = [self.ids(name) for name in operator.all_inputs]
        for ids in reaching:
            self.pin(ids)
        return any(ids.any() for ids in reaching)

    def cost(self, output: str, dense: int, *factors: Ids) -> None:
        """Notes what computing `output` costs, unless only auxiliary heads need it."""
        if dense <= 0:
            raise UserError(
                "the network computes with sizes that are unknown while it is traced: FLOPs cannot be counted"
            )
        if output in self._deployed:
            self.costs.append(Cost(dense, factors))

    def extents(self, tensor: str) -> tuple[Extent, ...] | None:
        return self.program.extents.get(tensor)


def _along(ids: Ids, axis: int, rank: int) -> Ids:
    """Lays a vector along one axis of an array of `rank` axes."""
    return ids.reshape([-1 if position == axis else 1 for position in range(rank)])
