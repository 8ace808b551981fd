"""Files of weights: PaddleSeg's (.pdparams), read without running what is in them, and ours (.safetensors)."""

import os
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from segslim.errors import UserError

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


WEIGHTS_FILE = "weights.safetensors"
# what paddle.save adds beside the weights: {name in the state dict: name of the parameter}
_NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a .pdparams or .safetensors file, or of a checkpoint folder. Raises UserError."""
    if path.is_dir():
        return read_safetensors(path / WEIGHTS_FILE)
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pdparams(path)


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Reads {name: array}. Raises UserError when there is no such file, or it is torn."""
    if not file.is_file():
        raise UserError(f"{file}: does not exist; give a .pdparams file or a checkpoint folder")
    try:
        return safetensors.numpy.load_file(file)
    except Exception as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); write the checkpoint again") from None


def read_pdparams(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads {name in the state dict: array} as `paddle.save(network.state_dict(), file)` of Paddle 2 or 3 writes it.

    A .pdparams file is a pickle, and unpickling runs whatever function it names; here only numpy arrays and plain
    containers are admitted.

    Raises UserError naming what was refused, or when the file cannot be read or holds something else than weights.
    """
    path = Path(file)
    try:
        content = read_arrays(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RefusedError as error:
        raise UserError(
            f"{path}: names {error}, which no file of weights needs; it was not run. Do not trust this file"
        ) from None
    except Exception as error:  # the bytes decide what goes wrong in the unpickler: nearly anything can
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: is not a whole .pdparams file ({reason}); save it again with paddle.save") from None
    return _weights(content, path)


def write_pdparams(file: str | os.PathLike[str], weights: Mapping[str, np.ndarray]) -> None:
    """Writes weights so that `paddle.load` and PaddleSeg read them."""
    with Path(file).open("wb") as stream:
        pickle.dump({**weights, _NAME_TABLE: {name: name for name in weights}}, stream, protocol=4)


def _weights(content: Any, path: Path) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name; save network.state_dict()")
    weights = {}
    for name, value in content.items():
        if name == _NAME_TABLE:
            continue
        if isinstance(value, tuple) and len(value) == 2:  # paddle.save of a tensor: (name of the parameter, array)
            value = value[1]
        if not isinstance(value, Array):
            raise UserError(
                f"{path}: holds a {type(value).__name__} for {name[:80]!r}, not an array; save network.state_dict()"
            )
        weights[name] = value.value
    return weights
