"""Files of weights: PaddleSeg's (.pdparams), read without running what is in them, and ours (.safetensors)."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from segslim.errors import UserError
from segslim.files import is_file
from segslim.networks.pdparams import read_pdparams, write_pdparams

__all__ = ["WEIGHTS_FILE", "read_pdparams", "read_safetensors", "read_weights", "write_pdparams"]
WEIGHTS_FILE = "weights.safetensors"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a .pdparams or .safetensors file, or of a checkpoint folder. Raises UserError."""
    if path.is_dir():
        return read_safetensors(path / WEIGHTS_FILE)
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pdparams(path)


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Reads {name: array}. Raises UserError when there is no such file, or it is torn."""
    if not is_file(file):
        raise UserError(f"{file}: does not exist; give a .pdparams file or a checkpoint folder")
    try:
        return safetensors.numpy.load_file(file)
    except Exception as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); write the checkpoint again") from None
