"""Carries channel ids through a program, operator by operator; the rules say how each kind of operator does it.

A channel id is one integer for one position on one parameter's axis. Ids are united where positions must live and die
together. Every tensor has an id array that broadcasts to its shape: (1, C, 1, 1) for a feature map whose channels have
ids, (1, 1, k, 1, 1) after they were folded into groups of k, () where there are none. So numpy does to the ids what an
operator does to the channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segslim.channels.program import AttributeSize, Operator, Program
from segslim.errors import UserError

Ids = NDArray[np.int64]

#: The id of everything that must stay. A class that contains it is pinned.
PINNED = 0
#: The ids of a tensor without prunable channels; it broadcasts to any shape.
NONE: Ids = np.zeros((), np.int64)

#: What a parameter's axis does to its channels.
PRODUCES, CONSUMES, CARRIES = "produces", "consumes", "carries"


class ChannelIds:
    """Hands out ids, collects the pairs that must be equal, and at the end computes the class of each id."""

    def __init__(self) -> None:
        self.count = 1  # 0 is PINNED
        self._left: list[Ids] = []
        self._right: list[Ids] = []

    def new(self, size: int) -> Ids:
        self.count += size
        return np.arange(self.count - size, self.count)

    def unite(self, left: Ids, right: Ids) -> None:
        """Unites two id arrays, broadcast against each other, element by element."""
        left, right = np.broadcast_arrays(left, right)
        self._left.append(left.ravel())
        self._right.append(right.ravel())

    def classes(self) -> Ids:
        """The class of every id: the least id that it is united with, hence 0 for all that are pinned."""
        label = np.arange(self.count)
        left, right = (np.concatenate([NONE.ravel(), *side]) for side in (self._left, self._right))
        while not np.array_equal(label[left], label[right]):
            least = np.minimum(label[left], label[right])
            np.minimum.at(label, label[left], least)
            np.minimum.at(label, label[right], least)
            while not np.array_equal(label, label[label]):  # every label becomes the root of its tree
                label = label[label]
        return label


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
    """What the rules work on: the ids of tensors so far, and all that is noted on the way.

    slots: every axis of a parameter that has ids; costs: of every deployed operator; multipliers: output channels per
    input channel of each depthwise convolution; attributes: layers' attributes and the channels they count;
    contracted: channels that end in a product of two activations.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.channel_ids = ChannelIds()
        self.slots: dict[tuple[str, int], Slot] = {}
        self.costs: list[Cost] = []
        self.multipliers: dict[str, int] = {}
        self.attributes: list[tuple[AttributeSize, Ids]] = []
        self.contracted: list[Ids] = []
        self._deployed = program.deployed()
        self._ids: dict[str, Ids] = {}
        self._read: set[str] = set()

    def run(self, rules: Mapping[str, "Rule"]) -> list[str]:
        """Applies a rule to every operator; returns the kinds that pinned channels because they have none."""
        unsupported = set()
        for operator in self.program.operators:
            try:
                if operator.kind not in rules:
                    raise Unsupported(operator.kind)
                rules[operator.kind](operator, self)
                for tensor in set(operator.all_inputs) - self._read:  # ids that the rule did not look at end here
                    self.pin(self.ids(tensor))
                self._read.clear()
            except (Unsupported, LookupError, TypeError, ValueError) as error:
                # a form of the operator that its rule does not know is as safe as an operator without a rule
                if self.pin_all(operator):
                    unsupported.add(str(error) if isinstance(error, Unsupported) else f"unfamiliar {operator.kind}")
        for output in self.program.outputs:
            self.pin(self.ids(output))
        for size in self.program.fixed_sizes:
            if self.full_ids(size.tensor).shape[size.axis] > 1:
                self.pin(self.axis_ids(size.tensor, size.axis))
        first: dict[AttributeSize, Ids] = {}
        for attribute, ids in self.attributes:  # an attribute is one number: all axes that it sizes lose the same
            self.unite(first.setdefault(attribute, ids), ids)
        return sorted(unsupported)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.program.shapes[tensor]

    def is_parameter(self, tensor: str) -> bool:
        return tensor in self.program.parameters

    def ids(self, tensor: str) -> Ids:
        """The ids that `tensor` carries. A parameter that varies along one axis gets ids there; the axes of any other
        are pinned, unless a layer's rule asks for them by `parameter_ids`.
        """
        self._read.add(tensor)
        if self.is_parameter(tensor) and tensor not in self._ids:
            shape = self.shape(tensor)
            long = [axis for axis, size in enumerate(shape) if size > 1]
            own = [self.parameter_ids(tensor, axis, CARRIES) for axis in long]
            if len(long) == 1:
                self._ids[tensor] = own[0].reshape([-1 if axis == long[0] else 1 for axis in range(len(shape))])
            else:
                for ids in own:
                    self.pin(ids)
                self._ids[tensor] = NONE
        return self._ids.get(tensor, NONE)

    def full_ids(self, tensor: str) -> Ids:
        """The ids of `tensor` with one axis for each of its own (of size 1 where the ids do not vary)."""
        ids = self.ids(tensor)
        return ids.reshape((1,) * (len(self.shape(tensor)) - ids.ndim) + ids.shape)

    def axis_ids(self, tensor: str, axis: int) -> Ids:
        """The ids along one axis, one for each position. Ids that vary along another axis as well are pinned."""
        ids = self.full_ids(tensor)
        axis %= ids.ndim
        if ids.size != ids.shape[axis]:
            self.pin(ids)
            ids = NONE
        return np.broadcast_to(ids.ravel(), self.shape(tensor)[axis])

    def parameter_ids(self, tensor: str, axis: int, role: str) -> Ids:
        """The ids along an axis of a parameter; pinned if `tensor` is no parameter of the network's own, or has one
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
            self.slots[key] = Slot(parameter.name, axis, self.channel_ids.new(parameter.shape[axis]), role)
        return self.slots[key].ids

    def set_ids(self, tensor: str, ids: Ids) -> None:
        """Sets the ids that `tensor` carries. Raises ValueError when they do not broadcast to its shape."""
        if (shape := self.program.shapes.get(tensor)) is not None and ids.any():
            np.broadcast_to(ids, shape)
        self._ids[tensor] = ids

    def unite(self, left: Ids, right: Ids) -> None:
        """Channels at the same position of two id arrays, broadcast against each other, live and die together."""
        if left.any() or right.any():
            self.channel_ids.unite(left, right)

    def pin(self, ids: Ids) -> None:
        """These channels stay."""
        self.unite(ids, NONE)

    def pinned(self, ids: Ids) -> Ids:
        """Pins ids, and returns an array of as many axes without any."""
        self.pin(ids)
        return np.zeros((1,) * ids.ndim, np.int64)

    def pin_all(self, operator: Operator) -> bool:
        """Pins all ids that reach an operator; its outputs have none. Returns whether there were any."""
        reaching = [self.ids(name) for name in operator.all_inputs]
        for ids in reaching:
            self.pin(ids)
        return any(ids.any() for ids in reaching)

    def add_cost(self, output: str, dense: int, *factors: Ids) -> None:
        """Notes the multiply-accumulates of computing `output`, unless only auxiliary heads need it."""
        if dense <= 0:
            raise UserError(
                "the network computes with sizes that are unknown while it is traced: FLOPs cannot be counted"
            )
        if output in self._deployed:
            self.costs.append(Cost(dense, factors))


Rule = Callable[[Operator, Walk], None]
#: The rule for each kind of operator, filled by the modules of segslim.channels.rules.
RULES: dict[str, Rule] = {}


class Unsupported(Exception):
    """Raised by a rule for a case of its operator that it does not treat, which it names. The channels are pinned, as
    without a rule.
    """


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule for these kinds of operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register
