"""PaddleSeg's files of weights (.pdparams), read without running what is in them, in no more memory than they have.

A .pdparams file is a pickle: a program for a stack machine. Only those instructions, names and arguments are admitted
that `paddle.save(network.state_dict(), file)` of Paddle 2 and 3 writes, by the protocols 2 to 4: what is left of the
language builds dicts, lists and tuples of texts, numbers and arrays, each argument checked for its type before use.
"""

import math
import os
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from segslim.errors import UserError
from segslim.files import open_regular

MOST_INSTRUCTIONS = 1_000_000  # some forty an array
MOST_AXES = 16
# what paddle.save adds beside the weights: {name in the state dict: name of the parameter}
_NAME_TABLE = "StructuredToParameterName@@"
# and, by the protocols 2 and 3, of arrays of a gigabyte and more: {name: {OriginShape, slices: [name, ...]}}
_SLICED = "UnpackBigParamInfor@@"
_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


class RefusedError(Exception):
    """What a file wants that no file of weights needs."""


class Array:
    """Stands in for a numpy.ndarray; a view of the bytes that are in the file, any number of which may share them."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        match state:
            case (int(), shape, _Dtype() as dtype, bool() as fortran, bytes() as content) if self.value is None:
                self.value = dtype.array(_shape(shape), content, "F" if fortran else "C")
            case _:
                raise RefusedError("an array of something else than its bytes")


class _Dtype:
    """Stands in for a numpy.dtype, of whose pickled state only the byte order counts: its flags can corrupt memory."""

    def __init__(self, code: str) -> None:
        self._dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        match state:
            case (_, "<" | ">" | "|" | "=" as order, *_):
                self._dtype = self._dtype.newbyteorder(order)
            case _:
                raise RefusedError("a type of numbers without a byte order")

    def array(self, shape: tuple[int, ...], content: bytes, order: Any = "C") -> np.ndarray:
        if math.prod(shape) * self._dtype.itemsize != len(content):
            raise ValueError(f"an array of {len(content)} bytes for {len(shape)} axes")
        return np.ndarray(shape, self._dtype, content, order=order)


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise RefusedError("an array without a shape")
    return shape


def read_arrays(path: Path) -> Any:
    """What the file holds, an `Array` for each array.

    Raises RefusedError for what is not admitted, and any exception where the bytes are no pickle.
    """
    with open_regular(path) as stream:
        machine = _Machine(os.fstat(stream.fileno()).st_size)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                return machine.pop()
            if count > MOST_INSTRUCTIONS:
                raise RefusedError(f"more than {MOST_INSTRUCTIONS} pickle instructions")
            machine.do(opcode.name, argument)
    raise EOFError


class _Machine:
    """The stack machine that a pickle is a program of."""

    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under the marks
        self._memo: dict[int, Any] = {}
        self._unencoded = size
        multiarray = {"_reconstruct": self._reconstruct, "scalar": self._scalar}
        self._admitted: Mapping[str, Mapping[str, Callable[..., Any]]] = {
            "numpy.core.multiarray": multiarray,  # numpy 1
            "numpy._core.multiarray": multiarray,  # numpy 2
            "numpy": {"ndarray": _ndarray, "dtype": _dtype},
            "_codecs": {"encode": self._encode},
            "collections": {"OrderedDict": _empty(dict)},
            "builtins": {"tuple": _tuple},
            "__builtin__": {"tuple": _tuple, "bytes": _empty(bytes)},  # protocol 2
        }

    def pop(self) -> Any:
        return self._stack.pop()

    def do(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            raise RefusedError(f"the pickle instruction {name}")

    def nothing(self, _: Any) -> None:
        """The protocol, and the frames that a pickle is cut into."""

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def name(self, module_and_name: str | None) -> None:
        """GLOBAL has both names in one argument, STACK_GLOBAL finds them on the stack."""
        if module_and_name is None:
            name, module = self.pop(), self.pop()
            if type(module) is not str or type(name) is not str:
                raise RefusedError(f"something by a {type(module).__name__} and a {type(name).__name__}")
        else:
            module, name = module_and_name.split(" ", 1)
        if name not in self._admitted.get(module, {}):
            raise RefusedError(f"{module[:60]}.{name[:60]}")
        self._stack.append(self._admitted[module][name])

    def call(self, _: Any) -> None:
        arguments, stand_in = self.pop(), self.pop()
        if not callable(stand_in):
            raise RefusedError(f"a call of a {type(stand_in).__name__}")
        if type(arguments) is not tuple:
            raise RefusedError(f"a call with a {type(arguments).__name__}")
        self._stack.append(stand_in(arguments))

    def build(self, _: Any) -> None:
        state = self.pop()
        if not isinstance(self._stack[-1], (Array, _Dtype)):
            raise RefusedError(f"a state for a {type(self._stack[-1]).__name__}")
        self._stack[-1].build(state)

    def tuple_of(self, count: int | None) -> None:
        items = self._since_mark() if count is None else [self.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._put(zip(items[::2], items[1::2], strict=True))

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._put([(key, value)])

    def append_all(self, _: Any) -> None:
        items = self._since_mark()
        self._list().extend(items)

    def append_one(self, _: Any) -> None:
        item = self.pop()
        self._list().append(item)

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _list(self) -> list[Any]:
        if not isinstance(self._stack[-1], list):
            raise RefusedError(f"an append to a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _put(self, items: Any) -> None:
        if not isinstance(self._stack[-1], dict):
            raise RefusedError(f"an item of a {type(self._stack[-1]).__name__}")
        for key, value in items:
            if type(key) is not str:
                raise RefusedError(f"a {type(key).__name__} as a key")
            self._stack[-1][key] = value

    def _reconstruct(self, arguments: tuple[Any, ...]) -> Array:
        match arguments:
            case (kind, tuple(), bytes()) if kind is _ndarray:
                return Array()
        raise RefusedError("an array of another kind than numpy's")

    def _scalar(self, arguments: tuple[Any, ...]) -> Array:
        match arguments:
            case (_Dtype() as dtype, bytes() as content):
                made = Array()
                made.value = dtype.array((), content)
                return made
        raise RefusedError("a number of something else than its bytes")

    def _encode(self, arguments: tuple[Any, ...]) -> bytes:
        """How protocol 2 writes the bytes of an array: each text of the file is used once."""
        match arguments:
            case (str() as text, "latin1"):
                self._unencoded -= len(text)
                if self._unencoded < 0:
                    raise RefusedError("more bytes than it holds")
                return text.encode("latin1")
        raise RefusedError("bytes in another encoding than latin1")


def _ndarray(_: tuple[Any, ...]) -> NoReturn:
    """The class, which is only passed on to _reconstruct."""
    raise RefusedError("a call of numpy.ndarray")


def _dtype(arguments: tuple[Any, ...]) -> _Dtype:
    code = arguments[0] if arguments else None
    if type(code) is not str or code not in _TYPES:
        raise RefusedError(f"an array of type {code[:40] if type(code) is str else type(code).__name__}")
    return _Dtype(code)


def _tuple(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments:
        case (tuple() as items,):
            return items
    raise RefusedError("a tuple of something else than a tuple")


def _empty(kind: Callable[[], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def make(arguments: tuple[Any, ...]) -> Any:
        if arguments:
            raise RefusedError(f"{getattr(kind, '__name__', kind)} of something")
        return kind()

    return make


_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_VALUES = frozenset(_NUMBERS | _TEXTS | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"})
_EMPTY: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.nothing),
    "MARK": _Machine.mark,
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _Machine.memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine.name),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "TUPLE": lambda machine, _: machine.tuple_of(None),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append_one,
    "APPENDS": _Machine.append_all,
}


def read_pdparams(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads {name in the state dict: array}. The arrays are views, not to be written to.

    Raises UserError naming what was refused, or when the file cannot be read or holds something else than weights.
    """
    path = Path(file)
    try:
        return _weights(read_arrays(path), path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RefusedError as error:
        raise UserError(
            f"{path}: names {error}, which no file of weights needs; it was not run. Do not trust this file"
        ) from None
    except Exception as error:  # the bytes decide what goes wrong in the unpickler: nearly anything can
        reason = " ".join(str(error)[:1000].split())[:200] or type(error).__name__
        raise UserError(f"{path}: is not a whole .pdparams file ({reason}); save it again with paddle.save") from None


def write_pdparams(file: str | os.PathLike[str], weights: Mapping[str, np.ndarray]) -> None:
    """Writes weights so that `paddle.load` and PaddleSeg read them."""
    with Path(file).open("wb") as stream:
        pickle.dump({**weights, _NAME_TABLE: {name: name for name in weights}}, stream, protocol=4)


def _weights(content: Any, path: Path) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name; save network.state_dict()")
    weights = {}
    sliced = content.get(_SLICED, {})
    for name, value in content.items():
        if name in (_NAME_TABLE, _SLICED):
            continue
        if isinstance(value, tuple) and len(value) == 2:  # paddle.save of a tensor: (name of the parameter, array)
            value = value[1]
        if not isinstance(value, Array) or value.value is None:
            raise UserError(
                f"{path}: holds a {type(value).__name__} for {name[:80]!r}, not an array; save network.state_dict()"
            )
        weights[name] = value.value
    left = path.stat().st_size  # slices may lie on the same bytes: together they are no more than the file
    for name, parts in sliced.items():
        slices = [weights.pop(part).ravel() for part in parts["slices"] if type(part) is str]
        left -= sum(part.nbytes for part in slices)
        if left < 0:
            raise RefusedError("more bytes than it holds")
        weights[name] = np.concatenate(slices).reshape(_shape(parts["OriginShape"]))
    return weights
