"""A network for use without segslim: its weights as PaddleSeg has them, and a small file of Python that rebuilds it."""

import os
import shutil
from pathlib import Path

from segslim.errors import UserError
from segslim.networks.pdparams import write_pdparams
from segslim.networks.weights import WEIGHTS_FILE, read_safetensors


def write_standalone(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[str]:
    """Writes model.pdparams, model.yaml, channels.json (where channels were taken out) and load_network.py.

    Needs no Paddle. Returns the names of the files. Raises UserError when `checkpoint` is no checkpoint folder, or
    `folder` cannot be written.
    """
    source, target = Path(checkpoint), Path(folder)
    weights = read_safetensors(source / WEIGHTS_FILE)
    copied = [source / "model.yaml", source / "channels.json", Path(__file__).with_name("load_network.py")]
    copied = [file for file in copied if file.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_pdparams(target / "model.pdparams", weights)
        for file in copied:
            shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give another folder") from None
    return ["model.pdparams", *(file.name for file in copied)]
