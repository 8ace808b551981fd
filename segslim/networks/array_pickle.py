"""Reads the part of pickle that files of weights are made of. Nothing that such a file names is looked up or called.

Python's own unpickler cannot be made safe by refusing names alone: ten bytes make it take gigabytes (a memo index of
2**31), and two hundred hash a dictionary's key for ever. This one knows the instructions that arrays in plain
containers need, takes text alone for a key, and never holds more than a small multiple of the file.
"""

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

MOST_INSTRUCTIONS = 1_000_000  # some forty an array


class RefusedError(Exception):
    """What a file wants that no file of weights needs."""


class Array:
    """Stands in for a numpy.ndarray; holds no more than the bytes that are in the file, whatever shape they claim."""

    def __init__(self, _class: None, _shape: tuple[int, ...], _code: bytes) -> None:
        self.value = np.empty(0)

    def build(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, content = state
        self.value = dtype.array(shape, content, "F" if fortran else "C")


class _Dtype:
    """Stands in for a numpy.dtype, of whose pickled state only the byte order counts: its flags can corrupt memory."""

    def __init__(self, code: str, *_flags: bool) -> None:
        self._dtype = np.dtype(str(code))
        if self._dtype.kind not in "biufc":
            raise RefusedError(f"an array of type {str(code)[:40]}")

    def build(self, state: tuple[Any, ...]) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    def array(self, shape: tuple[int, ...], content: bytes, order: Literal["C", "F"] = "C") -> np.ndarray:
        """A view, not a copy: any number of arrays may be built on the same bytes."""
        return np.ndarray(shape, self._dtype, content, order=order)


def read_arrays(path: Path) -> Any:
    """What the file holds, an `Array` for each array.

    Raises RefusedError for what is not admitted, and any exception where the bytes are no pickle.
    """
    machine = _Machine(path.stat().st_size)
    with path.open("rb") as stream:
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
        multiarray = {"_reconstruct": Array, "scalar": self._scalar}
        self._admitted: Mapping[str, Mapping[str, Any]] = {
            "numpy.core.multiarray": multiarray,  # numpy 1
            "numpy._core.multiarray": multiarray,  # numpy 2
            "numpy": {"ndarray": None, "dtype": _Dtype},  # None: the class is only passed on to _reconstruct
            "_codecs": {"encode": self._encode},
            "collections": {"OrderedDict": self._mapping},
            "builtins": {"tuple": self._tuple},
            "__builtin__": {"tuple": self._tuple, "bytes": bytes},  # protocol 2
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
        else:
            module, name = module_and_name.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str) or name not in self._admitted.get(module, {}):
            raise RefusedError(f"{str(module)[:60]}.{str(name)[:60]}")
        self._stack.append(self._admitted[module][name])

    def call(self, _: Any) -> None:
        arguments, stand_in = self.pop(), self.pop()
        if not callable(stand_in):
            raise RefusedError(f"a call of a {type(stand_in).__name__}")
        self._stack.append(stand_in(*arguments))

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
            if not isinstance(key, str):
                raise RefusedError(f"a {type(key).__name__} as a key")
            self._stack[-1][key] = value

    def _scalar(self, dtype: _Dtype, content: bytes) -> Array:
        made = Array(None, (), b"")
        made.value = dtype.array((), content)
        return made

    def _encode(self, text: str, _encoding: str) -> bytes:
        """How protocol 2 writes the bytes of an array: each text of the file is used once."""
        self._unencoded -= len(text)
        if self._unencoded < 0:
            raise RefusedError("more bytes than it holds")
        return text.encode("latin1")

    def _mapping(self, *items: Any) -> dict[str, Any]:
        if items:
            raise RefusedError("an OrderedDict of other things than its items")
        return {}

    def _tuple(self, items: Any) -> Any:
        if not isinstance(items, tuple):
            raise RefusedError(f"a tuple of a {type(items).__name__}")
        return items


_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
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
