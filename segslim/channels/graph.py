"""The channel graph: which channels of a network live and die together, and what each costs."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segslim.channels.identities import PINNED, Ids
from segslim.channels.program import Program, Stored
from segslim.channels.rules import RULES
from segslim.channels.rules.registry import Rule, Unsupported
from segslim.channels.walk import PRODUCES, Cost, Slot, Walk

_log = logging.getLogger(__name__)

#: What is kept of each group: sorted indices of its channels. Groups that are absent are kept whole.
Kept = Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """One axis of a parameter that a group's channels lie on.

    index: for every position on the axis, the channel of the group that it belongs to, or -1; role: "produces" (it
    makes the channel), "consumes" (it reads it) or "carries" (it belongs to the channel on its way: batch norm, bias,
    depthwise weight).
    """

    parameter: str
    axis: int
    role: str
    index: Ids


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that lie on exactly the same axes of the same parameters.

    name: the first parameter that makes them; size: how many channels; classes: the class of united ids of each.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    prunable: bool
    classes: Ids

    @property
    def producers(self) -> list[Member]:
        return [member for member in self.members if member.role == PRODUCES]


class ChannelGraph:
    """Built by `ChannelGraph.trace(network, input_shape)`; it holds no layer and no tensor of the network.

    groups: all ChannelGroups; classes: every class of united ids that can be removed; unsupported: the operators for
    want of whose rules channels are never removed; slots: every axis of every parameter with the class of each position
    (0 where it must stay); tensors: Paddle's name of each parameter, by its name in the state dict.
    """

    def __init__(self, program: Program, rules: Mapping[str, Rule] | None = None) -> None:
        walk = Walk(program)
        self.unsupported = _walk_all(walk, {**RULES, **(rules or {})})
        self.parameter_shapes = {p.name: p.shape for p in program.parameters.values()}
        self.trainable = {p.name for p in program.parameters.values() if p.trainable}
        self.aliases = {p.name: p.aliases for p in program.parameters.values()}
        self.tensors = {p.name: p.tensor for p in program.parameters.values()}
        label = walk.identities.classes()
        self.slots = [Slot(s.parameter, s.axis, label[s.ids], s.role) for s in walk.slots.values()]
        self.costs = [Cost(c.dense, tuple(label[ids] for ids in c.factors)) for c in walk.costs]
        self.multipliers = dict(walk.multipliers)
        self.contracted = np.unique(np.concatenate([np.zeros(0, np.int64), *(label[ids] for ids in walk.contracted)]))
        self.contracted = self.contracted[self.contracted != PINNED]
        self.stored: dict[Stored, Ids] = {stored: label[ids] for stored, ids in walk.stored if ids.size > 1}
        self.groups = _groups(self.slots, len(label))
        self.classes = np.concatenate(
            [np.zeros(0, np.int64), *(group.classes for group in self.groups if group.prunable)]
        )
        self._classes = {group.name: group.classes for group in self.groups}
        self._labels = len(label)

    @classmethod
    def trace(
        cls, network: Any, input_shape: tuple[int, ...], rules: Mapping[str, Rule] | None = None
    ) -> "ChannelGraph":
        """Traces a float dygraph network for inputs of `input_shape` (N, C, H, W), leaving it as it was.

        rules: by kind of operator, beside those of segslim.channels.rules and before them.

        Raises UserError when the network cannot be traced. Operators that the graph has no rule for keep their
        channels whole, and are named in `unsupported` and in the log.
        """
        from segslim.channels.trace import trace

        graph = cls(trace(network, tuple(input_shape)), rules)
        if graph.unsupported:
            _log.warning(
                "%s: channels that reach these operators are never removed: %s",
                type(network).__name__,
                ", ".join(graph.unsupported),
            )
        return graph

    @property
    def prunable_groups(self) -> list[ChannelGroup]:
        return [group for group in self.groups if group.prunable]

    def keeps(self, kept: Kept | None) -> Any:
        """One boolean for every class of ids: whether it is kept."""
        keep = np.ones(self._labels, bool)
        for name, indices in (kept or {}).items():
            classes = self._classes[name]
            keep[classes] = False
            keep[classes[np.asarray(indices, np.int64)]] = True
        return keep

    def flops(self, kept: Kept | None = None) -> int:
        """Multiply-accumulates of convolutions, linear layers and matrix products, for one pass at the traced input
        shape.
        """
        keep = self.keeps(kept)
        return round(
            sum(cost.dense * math.prod(float(keep[ids].mean()) for ids in cost.factors) for cost in self.costs)
        )

    def parameters(self, kept: Kept | None = None) -> int:
        """Trainable parameters, in elements."""
        keep = self.keeps(kept)
        share: dict[str, float] = defaultdict(lambda: 1.0)
        for slot in self.slots:
            share[slot.parameter] *= float(keep[slot.ids].mean())
        return round(
            sum(
                math.prod(shape) * share[name]
                for name, shape in self.parameter_shapes.items()
                if name in self.trainable
            )
        )


def _walk_all(walk: Walk, rules: Mapping[str, Rule]) -> list[str]:
    """Applies a rule to every operator; returns the kinds of those that pinned channels for want of one."""
    unsupported = []
    for operator in walk.program.operators:
        try:
            if operator.kind not in rules:
                raise Unsupported(operator.kind)
            rules[operator.kind](operator, walk)
            walk.pin_unread(operator)
        except (Unsupported, LookupError, TypeError, ValueError) as error:
            if walk.pin_all(operator):
                unsupported.append(str(error) if isinstance(error, Unsupported) else f"unfamiliar {operator.kind}")
    for output in walk.program.outputs:
        walk.pin(walk.ids(output))
    for size in walk.program.measured:
        if walk.full_ids(size.tensor).shape[size.axis] > 1:
            walk.pin(walk.axis_ids(size.tensor, size.axis))
    _unite_stored(walk)
    return sorted(set(unsupported))


def _unite_stored(walk: Walk) -> None:
    """One attribute is one number: all axes that it sizes lose the same channels."""
    first: dict[Stored, Ids] = {}
    for stored, ids in walk.stored:
        walk.unite(first.setdefault(stored, ids), ids)


def _groups(slots: list[Slot], labels: int) -> list[ChannelGroup]:
    """Puts classes on the same axes into one group; pinned positions form none."""
    places: dict[int, list[int]] = defaultdict(list)
    for number, slot in enumerate(slots):
        for label in np.unique(slot.ids):
            if label != PINNED:
                places[int(label)].append(number)
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label, numbers in places.items():
        together[tuple(numbers)].append(label)
    groups: list[ChannelGroup] = []
    taken: dict[str, int] = defaultdict(int)
    for places_of_group, classes in together.items():
        groups.append(_group([slots[number] for number in places_of_group], np.array(sorted(classes)), labels, taken))
    return groups


def _group(slots: list[Slot], classes: Ids, labels: int, taken: dict[str, int]) -> ChannelGroup:
    position = np.full(labels, -1)
    position[classes] = np.arange(len(classes))
    members = tuple(Member(slot.parameter, slot.axis, slot.role, position[slot.ids]) for slot in slots)
    producers = [slot.parameter for slot in slots if slot.role == PRODUCES]
    name = (producers or [slots[0].parameter])[0].removesuffix(".weight")
    taken[name] += 1
    if taken[name] > 1:
        name = f"{name}#{taken[name]}"
    return ChannelGroup(name, len(classes), members, bool(producers) and len(classes) > 1, classes)
