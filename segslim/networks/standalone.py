"""A network for use without segslim: its weights as PaddleSeg has them, and a small file of Python that rebuilds it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.weight_files import WEIGHTS_FILE, write_pdparams


def write_standalone(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[str]:
    """Writes model.pdparams, model.yaml, channels.json (where channels were taken out) and load_network.py.

    Needs no Paddle. Returns the names of the files. Raises UserError when `checkpoint` is no checkpoint folder, or
    `folder` cannot be written.
    """
    given, target = Checkpoint.load(checkpoint), Path(folder)
    program = Path(__file__).with_name("load_network.py")
    try:
        replace(given, quantization=None, measured={}).save(target)  # Paddle alone has no use for them
        (target / WEIGHTS_FILE).unlink()
        write_pdparams(target / "model.pdparams", given.weights)
        shutil.copyfile(program, target / program.name)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give another folder") from None
    return sorted(file.name for file in target.iterdir())
