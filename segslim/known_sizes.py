"""Sizes while a network is traced: plain known numbers that remember where they were read.

So a reshape tells what its numbers follow. Otherwise `paddle.shape` becomes an operator, sizes behind it become unknown
(-1) and no FLOPs can be counted; and a reshape by a tensor's own size looks like one by a written number, which breaks
once channels go.
"""

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from segslim.paddle_compat import import_paddle, patched


@dataclass
class SizeRecord:
    """How a network used sizes while it was traced.

    reshapes: each reshape's result and target; fixed_sizes: sizes that went into arithmetic; fixed_attributes: layers'
    attributes that did; constants: tensors that were made of whole numbers, and these. It holds tensors of the traced
    program, and must not outlive it.
    """

    reshapes: list[tuple[Any, list[Any]]] = field(default_factory=list)
    fixed_sizes: list["TracedSize"] = field(default_factory=list)
    fixed_attributes: set[tuple[str, str]] = field(default_factory=set)
    constants: dict[Any, Any] = field(default_factory=dict)


class KnownInt(int):
    """A number that the network's code takes for a tensor; so is what it computes from it (KnownFloat)."""

    def astype(self, dtype: Any) -> Any:
        return self if "int" in str(dtype) else KnownFloat(self)

    cast = astype

    def item(self) -> Any:
        return self

    numpy = item

    def unsqueeze(self, axis: Any = 0) -> "Sizes":
        return Sizes(import_paddle(), [self])

    reshape = unsqueeze


class KnownFloat(float):
    """As KnownInt."""

    def astype(self, dtype: Any) -> Any:
        return KnownInt(self) if "int" in str(dtype) else self

    cast, item, numpy = astype, KnownInt.item, KnownInt.item


def _known(value: Any) -> Any:
    """A number as one of those two; anything else as it is."""
    return {int: KnownInt, float: KnownFloat}.get(type(value), lambda same: same)(value)


def _computing(base: type, name: str) -> Callable[..., Any]:
    """The method `name` of `base`, giving known numbers."""

    def compute(self: Any, *others: Any) -> Any:
        for other in others:
            _fix_attribute(other)
        if base is int and any(isinstance(other, float) for other in others):
            return _known(getattr(float, name)(float(self), *others))
        return _known(getattr(base, name)(self, *others))

    return compute


class TracedSize(KnownInt):
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
        return (
            _known(value)
            if isinstance(other, TracedSize)
            else self.from_axis(value, self.tensor, self.axis, self.record)
        )

    def __mul__(self, other: Any) -> Any:
        return self._scaled(int.__mul__(self, other), other) if isinstance(other, int) else KnownFloat(self) * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return (
            self._scaled(int.__floordiv__(self, other), other) if isinstance(other, int) else KnownFloat(self) // other
        )

    def __float__(self) -> float:
        # whatever becomes a float is no longer a size, so the axis must keep its own
        self.record.fixed_sizes.append(self)
        return float(int(self))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return KnownFloat(self) ** other

    def __truediv__(self, other: Any) -> float:
        return KnownFloat(self) / other

    def __rtruediv__(self, other: Any) -> float:
        return other / KnownFloat(self)


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
        setattr(KnownInt, _operator, _computing(int, _operator))
        setattr(KnownFloat, _operator, _computing(float, _operator))
for _operator in ("__float__", "__neg__"):
    setattr(TracedAttribute, _operator, _fixing(_operator))


class Sizes(list[Any]):
    """What `paddle.shape` returns during a trace: a list that becomes a constant tensor when it is used like one."""

    def __init__(self, paddle: Any, sizes: Iterable[Any]) -> None:
        super().__init__(sizes)
        self.paddle = paddle

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return Sizes(self.paddle, item) if isinstance(index, slice) else item

    def astype(self, dtype: Any) -> "Sizes":
        return Sizes(self.paddle, [size.astype(dtype) for size in self])

    cast = astype

    def unsqueeze(self, axis: Any = 0) -> Any:
        return self.constant().unsqueeze(axis)

    def flatten(self, *_: Any) -> "Sizes":
        return self

    def reshape(self, shape: Any) -> Any:
        return self if list(shape) in ([-1], [len(self)]) else self.constant().reshape(shape)

    def constant(self) -> Any:
        return self.paddle.to_tensor([int(size) for size in self])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.constant(), name)


def _elementwise(name: str) -> Callable[..., Any]:
    """A tensor's arithmetic, where a list's would repeat and join."""

    def compute(self: Sizes, other: Any) -> Sizes:
        others = other if isinstance(other, list) else repeat(other)
        return Sizes(self.paddle, map(getattr(operator, name), self, others))

    return compute


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod"):
    setattr(Sizes, f"__{_name}__", _elementwise(_name))
Sizes.__rmul__ = Sizes.__mul__  # type: ignore[method-assign]


KNOWN = (KnownInt, KnownFloat)
#: What functions of Paddle give for numbers that are known, which the network's code takes for tensors.
_OF_KNOWN: dict[str, Callable[..., Any]] = {
    "cast": lambda x, dtype: x.astype(dtype),
    "ceil": lambda x: KnownFloat(math.ceil(x)),
    "floor": lambda x: KnownFloat(math.floor(x)),
    "sqrt": lambda x: KnownFloat(math.sqrt(x)),
    "minimum": min,
    "maximum": max,
    "unsqueeze": lambda x, axis=0: x.unsqueeze(axis),
    "to_tensor": lambda data, *_, **__: data if isinstance(data, KNOWN) else Sizes(import_paddle(), data),
    "concat": lambda x, axis=0: Sizes(import_paddle(), chain(*([y] if isinstance(y, KNOWN) else y for y in x))),
    "min": min,
    "max": max,
    "stack": lambda x, axis=0: Sizes(import_paddle(), x),
}
_OPERATORS = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv}


class _TakingKnown:
    """Paddle's function `name` that takes known numbers for tensors; `constants` are tensors made of whole numbers.

    It is equal to the original: PIR compares Paddle's functions to tell a division from other operators.
    """

    def __init__(self, paddle: Any, name: str, constants: dict[Any, Any]) -> None:
        self.name, self.constants, self.original = name, constants, getattr(paddle, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.original

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.name in _OPERATORS and any(map(_is_known, arguments[:2])):
            return _OPERATORS[self.name](*arguments[:2])
        if self.name == "concat" and arguments:
            parts = [
                part if _is_known(part) else self.constants.get(_identity(part), (0, part))[1] for part in arguments[0]
            ]
            arguments = (parts, *arguments[1:])
        given = (arguments or tuple(named.values()))[: 2 if self.name in ("minimum", "maximum") else 1]
        if self.name == "to_tensor" and any(isinstance(row, (list, tuple)) for row in _entries(given[0])):
            arguments = (_plain(given[0]), *arguments[1:])
        elif any(map(_is_known, given)) and all(map(_are_numbers, given)):
            return _OF_KNOWN[self.name](*arguments, **{key: value for key, value in named.items() if key != "name"})
        result = self.original(*arguments, **named)
        if self.name == "to_tensor" and isinstance(given[0], (list, tuple)) and all(type(n) is int for n in given[0]):
            self.constants[_identity(result)] = result, [KnownInt(number) for number in given[0]]
        return result


def _entries(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else ()


def _plain(value: Any) -> Any:
    """Nested lists of known numbers as lists of plain ones."""
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, KnownInt) else value


def _is_known(value: Any) -> bool:
    return isinstance(value, KNOWN) or (isinstance(value, (list, tuple)) and any(map(_is_known, value)))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, (list, tuple)) and all(map(_are_numbers, value)))


def _identity(value: Any) -> Any:
    return getattr(value, "id", None) or getattr(value, "name", None)


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
            *((paddle, name, _TakingKnown(paddle, name, record.constants)) for name in (*_OF_KNOWN, *_OPERATORS)),
        ):
            patches.enter_context(patched(owner, name, replacement))
        yield record


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
