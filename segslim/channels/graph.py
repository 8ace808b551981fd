"""The channel graph: which channels of a network live and die together, and what each costs."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segslim.channels.program import AttributeSize, Program
from segslim.channels.rules import RULES, Rule
from segslim.channels.trace import trace
from segslim.channels.walk import PINNED, PRODUCES, Cost, Ids, Slot, Walk

_log = logging.getLogger(__name__)

#: The sorted indices of the channels that each group keeps. A group that is absent keeps all.
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

    name: the first layer that makes them; size: the number of channels; classes: the class of united ids of each.
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

    groups: all ChannelGroups; classes: every class of united ids that can be removed; unsupported: the kinds of
    operators whose channels are never removed, because they have no rule; slots: every axis of every parameter with
    the class of each position (0 where it must stay); tensors: Paddle's name of each parameter, by its name in the
    state dict; aliases: a shared parameter's other names there.
    """

    def __init__(self, program: Program, rules: Mapping[str, Rule] | None = None) -> None:
        walk = Walk(program)
        self.unsupported = walk.run({**RULES, **(rules or {})})
        parameters = program.parameters.values()
        self.parameter_shapes = {p.name: p.shape for p in parameters}
        self.trainable = {p.name for p in parameters if p.trainable}
        self.aliases = {p.name: p.aliases for p in parameters}
        self.tensors = {p.name: p.tensor for p in parameters}
        label = walk.channel_ids.classes()
        self.slots = [Slot(s.parameter, s.axis, label[s.ids], s.role) for s in walk.slots.values()]
        self.costs = [Cost(c.dense, tuple(label[ids] for ids in c.factors)) for c in walk.costs]
        self.multipliers = dict(walk.multipliers)
        self.attributes: dict[AttributeSize, Ids] = {size: label[ids] for size, ids in walk.attributes if ids.size > 1}
        self.contracted = np.setdiff1d(_joined([label[ids] for ids in walk.contracted]), [PINNED])
        self.groups = _groups(self.slots, len(label))
        self.classes = _joined([group.classes for group in self.prunable_groups])
        self._classes = {group.name: group.classes for group in self.groups}
        self._labels = len(label)

    @classmethod
    def trace(
        cls, network: Any, input_shape: tuple[int, ...], rules: Mapping[str, Rule] | None = None
    ) -> "ChannelGraph":
        """Traces a float dygraph network, leaving it as it was.

        Args:
            network: any `paddle.nn.Layer` of one image.
            input_shape: (N, C, H, W); FLOPs are counted for it.
            rules: for kinds of operators, beside those of segslim.channels.rules and before them.

        Raises UserError when the network cannot be traced. Channels that reach an operator without a rule are never
        removed; these operators are named in `unsupported` and in the log.
        """
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
        """The number of trainable parameters, in elements."""
        keep = self.keeps(kept)
        share: dict[str, float] = defaultdict(lambda: 1.0)
        for slot in self.slots:
            share[slot.parameter] *= float(keep[slot.ids].mean())
        return round(sum(math.prod(self.parameter_shapes[name]) * share[name] for name in self.trainable))


def _joined(arrays: list[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, np.int64), *(array.ravel() for array in arrays)])


def _groups(slots: list[Slot], labels: int) -> list[ChannelGroup]:
    """Puts classes that lie in the same slots into one group; pinned positions form none."""
    slots_of_class: dict[int, list[int]] = defaultdict(list)
    for number, slot in enumerate(slots):
        for label in np.unique(slot.ids):
            if label != PINNED:
                slots_of_class[int(label)].append(number)
    classes_of_slots: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label, numbers in slots_of_class.items():
        classes_of_slots[tuple(numbers)].append(label)

    groups: list[ChannelGroup] = []
    names: dict[str, int] = defaultdict(int)
    for own_slots, own_classes in classes_of_slots.items():
        classes = np.array(sorted(own_classes))
        index = np.full(labels, -1)
        index[classes] = np.arange(len(classes))
        members = tuple(Member(s.parameter, s.axis, s.role, index[s.ids]) for s in (slots[n] for n in own_slots))
        producers = [member.parameter for member in members if member.role == PRODUCES]
        name = (producers or [members[0].parameter])[0].removesuffix(".weight")
        names[name] += 1
        if names[name] > 1:  # the channels of one layer may lie in several groups
            name = f"{name}#{names[name]}"
        groups.append(ChannelGroup(name, len(classes), members, bool(producers) and len(classes) > 1, classes))
    return groups
