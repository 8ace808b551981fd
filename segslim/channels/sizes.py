"""During a trace: sizes are plain known numbers, and each remembers where it was read, so that a reshape tells what
its numbers follow.

Without this `paddle.shape` becomes an operator, sizes behind it become unknown (-1), and no FLOPs can be counted; and
a reshape by a tensor's own size would look the same as a reshape by a number that was written down, which breaks once
channels go.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SizeRecord:
    """What a trace told about sizes, by the traced program's own tensors (their lifetime is the program's)."""

    reshapes: list[tuple[Any, list[Any]]] = field(default_factory=list)
    measured: list["Size"] = field(default_factory=list)
    computed: set[tuple[str, str]] = field(default_factory=set)


class Size(int):
    """The size of one axis of a traced tensor, or a constant multiple or fraction of it."""

    tensor: Any
    axis: int
    record: SizeRecord

    @classmethod
    def of(cls, value: int, tensor: Any, axis: int, record: SizeRecord) -> "Size":
        size = cls(value)
        size.tensor, size.axis, size.record = tensor, axis, record
        return size

    def _scaled(self, value: int, other: int) -> int:
        _note_computing(other)
        return value if isinstance(other, Size) else Size.of(value, self.tensor, self.axis, self.record)

    def __mul__(self, other: Any) -> Any:
        return self._scaled(int.__mul__(self, other), other) if isinstance(other, int) else float(self) * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return self._scaled(int.__floordiv__(self, other), other) if isinstance(other, int) else float(self) // other

    def __float__(self) -> float:
        self.record.measured.append(self)
        return float(int(self))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return float(self) ** other

    def __truediv__(self, other: Any) -> float:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> float:
        return other / float(self)


class StoredSize(int):
    """An integer attribute of a layer. Once it enters arithmetic it is no longer a mere size and may not be changed."""

    origin: tuple[str, str]
    record: SizeRecord

    @classmethod
    def of(cls, value: int, origin: tuple[str, str], record: SizeRecord) -> "StoredSize":
        size = cls(value)
        size.origin, size.record = origin, record
        return size


def _note_computing(value: Any) -> None:
    if isinstance(value, StoredSize):
        value.record.computed.add(value.origin)


def _computing(name: str) -> Callable[..., Any]:
    def compute(self: StoredSize, *arguments: Any) -> Any:
        for value in (self, *arguments):
            _note_computing(value)
        return getattr(int, name)(self, *arguments)

    return compute


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow"):
    for _operator in (f"__{_name}__", f"__r{_name}__"):
        setattr(StoredSize, _operator, _computing(_operator))
for _operator in ("__float__", "__neg__"):
    setattr(StoredSize, _operator, _computing(_operator))


class Sizes(list[Size]):
    """What `paddle.shape` gives: a list that becomes a constant tensor when it is used like one."""

    def __init__(self, paddle: Any, sizes: Iterable[Size]) -> None:
        super().__init__(sizes)
        self.paddle = paddle

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Sizes(self.paddle, found) if isinstance(index, slice) else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.paddle.to_tensor([int(size) for size in self]), name)


@contextmanager
def known_sizes(paddle: Any, network: Any, value_type: type) -> Iterator[SizeRecord]:
    """Patches Paddle's shape and reshape functions, and the network's integer attributes, while a network is traced
    into `value_type`s.
    """
    record = SizeRecord()
    plain_shape, plain_reshape = value_type.shape.fget, paddle.reshape  # type: ignore[attr-defined]

    def shape(tensor: Any) -> Any:
        sizes = plain_shape(tensor)
        return type(sizes)([Size.of(size, tensor, axis, record) for axis, size in enumerate(sizes)])

    def reshape(x: Any, shape: Any, name: str | None = None) -> Any:
        result = plain_reshape(x, shape, name)
        if isinstance(shape, (list, tuple)):
            record.reshapes.append((result, _own_sizes(x, shape, record)))
        return result

    with ExitStack() as patches, _stored_sizes(network, record):
        for owner, name, replacement in (
            (value_type, "shape", property(shape)),
            (value_type, "reshape", reshape),
            (value_type, "__bool__", _no_truth),
            (paddle, "shape", lambda input, name=None: Sizes(paddle, shape(input))),
            (paddle, "reshape", reshape),
            (paddle.tensor, "reshape", reshape),
            (paddle.tensor.manipulation, "reshape", reshape),
        ):
            patches.enter_context(replaced(owner, name, replacement))
        yield record


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute for a while."""
    original = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original) if original is not None else delattr(owner, name)


def _own_sizes(tensor: Any, target: Any, record: SizeRecord) -> list[Any]:
    """In a reshape's target 0 stands for the tensor's own size on that axis."""
    return [
        Size.of(tensor.shape[axis], tensor, axis, record) if type(number) is int and number == 0 else number
        for axis, number in enumerate(target)
    ]


def _no_truth(value: Any) -> bool:
    """Paddle 2.6 takes every traced tensor for true, silently, and its own code relies on it; later ones raise, as
    here.
    """
    if sys._getframe(1).f_globals.get("__name__", "").startswith("paddle."):
        return True
    raise TypeError("the truth of a tensor is unknown while a network is traced")


@contextmanager
def _stored_sizes(network: Any, record: SizeRecord) -> Iterator[None]:
    """Marks the integer attributes of the network's own layers (not Paddle's, whose sizes follow their parameters)."""
    changed = []
    for path, layer in network.named_sublayers(include_self=True):
        if type(layer).__module__.startswith("paddle."):
            continue
        for attribute, value in vars(layer).items():
            if type(value) is int and value > 1 and not attribute.startswith("_"):
                changed.append((vars(layer), attribute, value))
                vars(layer)[attribute] = StoredSize.of(value, (path, attribute), record)
    try:
        yield
    finally:
        for attributes, attribute, value in changed:
            attributes[attribute] = value
