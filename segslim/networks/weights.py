"""Weights of a network: taken from it, given to it, and never half."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from segslim.errors import UserError
from segslim.networks.pdparams import read_pdparams

WEIGHTS_FILE = "weights.safetensors"
_NAMED = 5  # so many of the weights that do not fit are named in an error, the others counted


def weights_of(network: Any) -> dict[str, np.ndarray]:
    """Copies of the parameters and the running statistics, by their names in the state dict."""
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in network.state_dict().items()}


def set_weights(network: Any, weights: Mapping[str, np.ndarray], origin: str | os.PathLike[str]) -> None:
    """Sets all parameters and running statistics in place, cast to the network's types; `origin` is named in errors.

    Raises UserError when a name or a shape does not fit; the network is then as it was.
    """
    tensors = network.state_dict()
    faults = _faults({name: tuple(tensor.shape) for name, tensor in tensors.items()}, weights)
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise UserError(
            f"{origin}: does not fit the network in {len(faults)} weights: {'; '.join(faults[:_NAMED])}{more}."
            " Is it of this model, with this num_classes?"
        )
    for name, tensor in tensors.items():
        tensor.set_value(_cast(weights[name], str(tensor.dtype).rpartition(".")[2]))


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


def _faults(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray]) -> list[str]:
    wrong = [
        f"{name} is {_by(weights[name].shape)}, the network's is {_by(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    missing = [f"{name} is missing" for name in shapes if name not in weights]
    unknown = [f"{name} is not in the network" for name in weights if name not in shapes]
    return wrong + missing + unknown


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype == np.uint16 and dtype.startswith("float"):  # how Paddle saves bfloat16
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype, copy=False)
