"""PaddleSeg's weight files (.pdparams): written for its users, and read without running what is in them."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segslim.errors import UserError

# what paddle.save adds beside the weights: {name in the state dict: name of the parameter}
_NAME_TABLE = "StructuredToParameterName@@"


def read_pdparams(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads {name in the state dict: array} as `paddle.save(network.state_dict(), file)` of Paddle 2 or 3 writes it.

    A .pdparams file is a pickle, and unpickling runs whatever function it names; here only numpy arrays and plain
    containers are admitted.

    Raises UserError naming what was refused, or when the file cannot be read or holds something else than weights.
    """
    path = Path(file)
    try:
        with path.open("rb") as stream:
            content = _ArrayUnpickler(stream, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except _RefusedError as error:
        raise UserError(
            f"{path}: names {error}, which no file of weights needs; it was not run. Do not trust this file"
        ) from None
    except Exception as error:  # the bytes decide what goes wrong in the unpickler: nearly anything can
        raise UserError(f"{path}: is not a whole .pdparams file ({error}); save it again with paddle.save") from None
    return _weights(content, path)


def write_pdparams(file: str | os.PathLike[str], weights: Mapping[str, np.ndarray]) -> None:
    """Writes weights so that `paddle.load` and PaddleSeg read them."""
    with Path(file).open("wb") as stream:
        pickle.dump({**weights, _NAME_TABLE: {name: name for name in weights}}, stream, protocol=4)


class _RefusedError(Exception):
    """The global that a pickle named and may not have."""


class _Dtype:
    """Stands in for a numpy.dtype, of whose pickled state only the byte order counts: its flags can corrupt memory."""

    def __init__(self, code: str, *_flags: bool) -> None:
        self._dtype = np.dtype(str(code))
        if self._dtype.kind not in "biufc":
            raise _RefusedError(f"an array of type {code}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    def array(self, shape: tuple[int, ...], content: bytes, order: Literal["C", "F"] = "C") -> np.ndarray:
        return np.ndarray(shape, self._dtype, content, order=order).copy()


class _Array:
    """Stands in for a numpy.ndarray; holds no more than the bytes that are in the file, whatever shape they claim."""

    def __init__(self, _class: None, _shape: tuple[int, ...], _code: bytes) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, content = state
        self.value = dtype.array(shape, content, "F" if fortran else "C")


def _scalar(dtype: _Dtype, content: bytes) -> np.ndarray:
    return dtype.array((), content)


def _bytes(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 writes the bytes of an array


def _no_bytes() -> bytes:
    return b""  # how protocol 2 writes those of an empty array


_MULTIARRAY = {"_reconstruct": _Array, "scalar": _scalar}
_ADMITTED: Mapping[str, Mapping[str, Any]] = {
    "numpy.core.multiarray": _MULTIARRAY,  # numpy 1
    "numpy._core.multiarray": _MULTIARRAY,  # numpy 2
    "numpy": {"ndarray": None, "dtype": _Dtype},  # None: the class is only passed on to _reconstruct
    "_codecs": {"encode": _bytes},
    "collections": {"OrderedDict": OrderedDict},
    "builtins": {"tuple": tuple},
    "__builtin__": {"tuple": tuple, "bytes": _no_bytes},  # protocol 2
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the few globals of pickled arrays, each by its stand-in: no code of numpy's runs on what is read."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ADMITTED[module_name][global_name]
        except KeyError:
            raise _RefusedError(f"{module_name}.{global_name}") from None


def _weights(content: Any, path: Path) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name; save network.state_dict()")
    weights = {}
    for name, value in content.items():
        if name == _NAME_TABLE:
            continue
        if isinstance(value, tuple) and len(value) == 2:  # paddle.save of a tensor: (name of the parameter, array)
            value = value[1]
        if not isinstance(name, str) or not isinstance(value, _Array):
            raise UserError(
                f"{path}: holds a {type(value).__name__} for {name!r}, not an array; save network.state_dict()"
            )
        weights[name] = value.value
    return weights
