"""The neutral form of a traced network: what the channel graph sees instead of Paddle's intermediate
representations.
"""

from dataclasses import dataclass, field
from typing import Any


class Branching(Exception):
    """Raised by a reader for a program with conditions or loops: what happens inside them is not followed."""


@dataclass(frozen=True)
class Operator:
    """One operator; tensors are named by strings, and kinds, roles and attributes have one spelling for every
    Paddle.
    """

    kind: str
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def input(self, *roles: str) -> str:
        """The tensor in the first of these roles that the operator has."""
        return self.inputs[next((role for role in roles if role in self.inputs), roles[0])][0]

    @property
    def channel_axis(self) -> int:
        """Where its images have their channels."""
        layout = self.attributes.get("data_format", self.attributes.get("data_layout", "NCHW"))
        return -1 if layout in ("NHWC", "NLC", "NDHWC") else 1

    @property
    def output(self) -> str:
        """The first result."""
        return self.outputs[0]

    @property
    def all_inputs(self) -> tuple[str, ...]:
        return tuple(name for names in self.inputs.values() for name in names)


@dataclass(frozen=True)
class Parameter:
    """A parameter or persistent buffer of the network.

    name: its first key in the state dict; aliases: its other keys, when layers share it; tensor: its name inside
    Paddle, which exported files keep; grouped: whether its layer is a convolution with a number of groups to set;
    trainable: whether an optimizer changes it.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    grouped: bool
    trainable: bool
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Follows:
    """A number in a reshape that was read off axis `axis` of `tensor` (times or divided by a constant): it follows
    that axis' size.
    """

    tensor: str
    axis: int


@dataclass(frozen=True)
class Stored:
    """A number in a reshape that is an attribute of a layer, used for nothing else: it can be made to follow the
    channels.
    """

    layer: str
    attribute: str


#: How one number of a reshape's target was given: as one of the two above, "rest" for Paddle's -1, "fixed" else.
Extent = Follows | Stored | str


@dataclass(frozen=True)
class Program:
    """A traced network.

    shapes: of every tensor, complete for the traced input; parameters: by tensor name; outputs: every tensor that the
    network returns, auxiliary heads included; extents: for the output of a reshape, how each number of its target was
    given; measured: axes whose size went into arithmetic (an attention's `C ** -0.5`), which must therefore keep it.
    """

    operators: tuple[Operator, ...]
    shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, Parameter]
    outputs: tuple[str, ...]
    extents: dict[str, tuple[Extent, ...]]
    measured: tuple[Follows, ...]

    def deployed(self) -> set[str]:
        """The tensors that the first output depends on: what is left when auxiliary heads are not run."""
        needed = set(self.outputs[:1])
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.all_inputs)
        return needed
