"""Traces a dygraph network into a neutral program, and leaves the network as it was.

While a network is traced, sizes are plain known numbers that remember where they were read, so that a reshape tells
what its numbers follow. Otherwise `paddle.shape` becomes an operator, sizes behind it become unknown (-1) and no FLOPs
can be counted; and a reshape by a tensor's own size looks like one by a written number, which breaks once channels go.
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from segslim.channels.program import (
    AttributeSize,
    Branching,
    Extent,
    OldIrReader,
    Parameter,
    PirReader,
    Program,
    TensorSize,
)
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle


def trace(network: Any, input_shape: tuple[int, ...]) -> Program:
    """Traces `network` for one float32 input of `input_shape` (N, C, H, W), with its auxiliary heads and without
    dropout.

    The network's Python runs as it is, on symbolic tensors, rather than through Paddle's rewriting of its source: that
    is 4 to 6 times faster, and every size is known. Raises UserError when the network branches on a tensor's value,
    when two of its parameters have one name, or when its code fails.
    """
    paddle = import_paddle()
    reader = PirReader(paddle) if paddle.framework.use_pir_api() else OldIrReader(paddle)
    with with_auxiliary_heads(network), known_sizes(paddle, network, reader.value_type) as record:
        traced = _run_symbolically(paddle, network, input_shape)
        try:
            operators, shapes, tensors = reader.read(traced.main_program)
        except Branching as error:
            raise UserError(f"{type(network).__name__} branches on values, which pruning cannot follow") from error
        outputs = tuple(
            reader.name(value) for value in paddle.utils.flatten(traced.outputs) if isinstance(value, reader.value_type)
        )
    by_tensor = _parameters(network)

    def extent(number: Any) -> Extent:
        if isinstance(number, TracedSize):
            return TensorSize(reader.name(number.tensor), number.axis)
        if isinstance(number, TracedAttribute) and number.origin not in record.fixed_attributes:
            return AttributeSize(*number.origin)
        return "rest" if isinstance(number, int) and number == -1 else "fixed"

    return Program(
        operators=tuple(operators),
        shapes=shapes,
        parameters={tensor: by_tensor[name] for tensor, name in tensors.items() if name in by_tensor},
        outputs=outputs,
        extents={reader.name(value): tuple(map(extent, target)) for value, target in record.reshapes},
        fixed_sizes=tuple(TensorSize(reader.name(size.tensor), size.axis) for size in record.fixed_sizes),
    )


def _run_symbolically(paddle: Any, network: Any, input_shape: tuple[int, ...]) -> Any:
    class Traced(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @paddle.jit.not_to_static
        def forward(self, image: Any) -> Any:
            return self.network(image)

    spec = paddle.static.InputSpec(list(input_shape), "float32")
    traced = Traced()  # a variable of its own, because Paddle holds it weakly
    try:
        with _without_diagnostics(paddle):
            return paddle.jit.to_static(traced, input_spec=[spec], full_graph=True).forward.concrete_program
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise UserError(f"{type(network).__name__} cannot be traced at input shape {input_shape}: {reason}") from error


@contextmanager
def _without_diagnostics(paddle: Any) -> Iterator[None]:
    """Traces without Paddle's notes for error messages.

    Paddle 2.6.2 and 3.3.1 write the Python stack into every operator, and Paddle 3 lists all operators so far after
    every layer to name them: three quarters of the time for a large network, called from deep within a program. It can
    go when tracing HRNet takes the same time without it.
    """
    layers, extract_stack = paddle.nn.layer.layers, traceback.extract_stack
    with ExitStack() as patches:
        patches.enter_context(_patched(traceback, "extract_stack", lambda *_, **__: extract_stack(limit=1)))
        if hasattr(layers, "name_struct"):
            patches.enter_context(_patched(layers, "name_struct", nullcontext))
        yield


@contextmanager
def with_auxiliary_heads(network: Any) -> Iterator[None]:
    """Puts containers in training mode, so that auxiliary heads run, and leaves in evaluation mode, so that dropout
    adds no masks; restores all modes afterwards.
    """
    layers = list(network.sublayers(include_self=True))
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = bool(list(layer.children())) and not type(layer).__name__.startswith("Drop")
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _parameters(network: Any) -> dict[str, Parameter]:
    """The network's parameters and buffers by Paddle's name of them."""
    parameters: dict[str, Parameter] = {}
    objects: dict[str, int] = {}
    grouped = {
        id(value)
        for layer in network.sublayers(include_self=True)
        if hasattr(layer, "_groups")
        for value in layer._parameters.values()
    }
    for name, value in network.state_dict().items():
        if objects.setdefault(value.name, id(value)) != id(value):
            raise UserError(
                f"two parameters of {type(network).__name__} are both named {value.name!r}: give each its own name"
            )
        if shared := parameters.get(value.name):
            parameters[value.name] = replace(shared, aliases=(*shared.aliases, name))
        else:
            shape = tuple(value.shape)
            parameters[value.name] = Parameter(name, value.name, shape, id(value) in grouped, not value.stop_gradient)
    return parameters


@dataclass
class SizeRecord:
    """How a network used sizes while it was traced.

    reshapes: each reshape's result and target; fixed_sizes: sizes that went into arithmetic; fixed_attributes: layers'
    attributes that did. It holds tensors of the traced program, and must not outlive it.
    """

    reshapes: list[tuple[Any, list[Any]]] = field(default_factory=list)
    fixed_sizes: list["TracedSize"] = field(default_factory=list)
    fixed_attributes: set[tuple[str, str]] = field(default_factory=set)


class TracedSize(int):
    """The size of one axis of a traced tensor, or a constant multiple or fraction of it."""

    tensor: Any
    axis: int
    record: SizeRecord

    @classmethod
    def from_axis(cls, value: int, tensor: Any, axis: int, record: SizeRecord) -> "TracedSize":
        size = cls(value)
        size.tensor, size.axis, size.record = tensor, axis, record
        return size

    def _scaled(self, value: int, other: int) -> int:
        _fix_attribute(other)
        return value if isinstance(other, TracedSize) else self.from_axis(value, self.tensor, self.axis, self.record)

    def __mul__(self, other: Any) -> Any:
        return self._scaled(int.__mul__(self, other), other) if isinstance(other, int) else float(self) * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return self._scaled(int.__floordiv__(self, other), other) if isinstance(other, int) else float(self) // other

    def __float__(self) -> float:
        # whatever becomes a float is no longer a size, so the axis must keep its own
        self.record.fixed_sizes.append(self)
        return float(int(self))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return float(self) ** other

    def __truediv__(self, other: Any) -> float:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> float:
        return other / float(self)


class TracedAttribute(int):
    """An integer attribute of a layer. Once it enters arithmetic it is no longer a mere size and may not be changed."""

    origin: tuple[str, str]
    record: SizeRecord

    @classmethod
    def from_layer(cls, value: int, origin: tuple[str, str], record: SizeRecord) -> "TracedAttribute":
        size = cls(value)
        size.origin, size.record = origin, record
        return size


def _fix_attribute(value: Any) -> None:
    if isinstance(value, TracedAttribute):
        value.record.fixed_attributes.add(value.origin)


def _fixing(name: str) -> Callable[..., Any]:
    """An arithmetic method of int that first fixes the attributes it computes with."""

    def compute(self: TracedAttribute, *arguments: Any) -> Any:
        for value in (self, *arguments):
            _fix_attribute(value)
        return getattr(int, name)(self, *arguments)

    return compute


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow"):
    for _operator in (f"__{_name}__", f"__r{_name}__"):
        setattr(TracedAttribute, _operator, _fixing(_operator))
for _operator in ("__float__", "__neg__"):
    setattr(TracedAttribute, _operator, _fixing(_operator))


class Sizes(list[TracedSize]):
    """What `paddle.shape` returns during a trace: a list that becomes a constant tensor when it is used like one."""

    def __init__(self, paddle: Any, sizes: Iterable[TracedSize]) -> None:
        super().__init__(sizes)
        self.paddle = paddle

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return Sizes(self.paddle, item) if isinstance(index, slice) else item

    def __getattr__(self, name: str) -> Any:
        return getattr(self.paddle.to_tensor([int(size) for size in self]), name)


@contextmanager
def known_sizes(paddle: Any, network: Any, value_type: type) -> Iterator[SizeRecord]:
    """Patches Paddle's shape and reshape functions, and the network's integer attributes, while a network is traced
    into `value_type`s.
    """
    record = SizeRecord()
    original_shape, original_reshape = value_type.shape.fget, paddle.reshape  # type: ignore[attr-defined]

    def shape(tensor: Any) -> Any:
        sizes = original_shape(tensor)
        return type(sizes)([TracedSize.from_axis(size, tensor, axis, record) for axis, size in enumerate(sizes)])

    def reshape(x: Any, shape: Any, name: str | None = None) -> Any:
        result = original_reshape(x, shape, name)
        if isinstance(shape, (list, tuple)):
            # a plain 0 in the target stands for the tensor's own size on that axis
            target = [x.shape[axis] if type(n) is int and n == 0 else n for axis, n in enumerate(shape)]
            record.reshapes.append((result, target))
        return result

    def truth(value: Any) -> bool:
        # Paddle 2.6 silently takes every traced tensor for true, and its own code relies on it; Paddle 3 raises
        if sys._getframe(1).f_globals.get("__name__", "").startswith("paddle."):
            return True
        raise TypeError("the truth of a tensor is unknown while a network is traced")

    with ExitStack() as patches, _traced_attributes(network, record):
        for owner, name, replacement in (
            (value_type, "shape", property(shape)),
            (value_type, "reshape", reshape),
            (value_type, "__bool__", truth),
            (paddle, "shape", lambda input, name=None: Sizes(paddle, shape(input))),
            (paddle, "reshape", reshape),
            (paddle.tensor, "reshape", reshape),
            (paddle.tensor.manipulation, "reshape", reshape),
        ):
            patches.enter_context(_patched(owner, name, replacement))
        yield record


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute within the block, and restores it, or its absence, afterwards."""
    original = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original) if original is not None else delattr(owner, name)


@contextmanager
def _traced_attributes(network: Any, record: SizeRecord) -> Iterator[None]:
    """Replaces the integer attributes of the network's own layers by TracedAttributes within the block."""
    changed = []
    for path, layer in network.named_sublayers(include_self=True):
        if type(layer).__module__.startswith("paddle."):  # Paddle's own layers read their sizes from their parameters
            continue
        for attribute, value in vars(layer).items():
            if type(value) is int and value > 1 and not attribute.startswith("_"):
                changed.append((vars(layer), attribute, value))
                vars(layer)[attribute] = TracedAttribute.from_layer(value, (path, attribute), record)
    try:
        yield
    finally:
        for attributes, attribute, value in changed:
            attributes[attribute] = value
