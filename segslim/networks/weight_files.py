"""Files of weights: PaddleSeg's (.pdparams), read without running what is in them, and ours (.safetensors)."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from segslim.errors import UserError
from segslim.networks.array_pickle import Array, RefusedError, read_arrays

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
