"""What a killed training goes on from: one file, which is there whole or not at all."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from segslim.files import flush

_FILE = "training.safetensors"
_PARTS = ("weights", "velocity", "best")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A training between two iterations. Arrays go by names in the state dict; `record` holds plain values."""

    weights: Mapping[str, np.ndarray]
    velocity: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    record: Mapping[str, Any]


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Replaces the snapshot in `folder`; a process killed at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{part}/{name}": array for part in _PARTS for name, array in getattr(snapshot, part).items()}
    unfinished = folder / f"{_FILE}.unfinished"
    try:
        safetensors.numpy.save_file(arrays, unfinished, metadata={"record": json.dumps(snapshot.record)})
        flush(unfinished)
        unfinished.replace(folder / _FILE)
    except Exception:
        unfinished.unlink(missing_ok=True)  # on a full disk it would take what is left
        raise
    flush(folder)


def read_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot in `folder`, or None where there is none or, with a warning, where it cannot be read."""
    file = folder / _FILE
    if not file.exists():
        return None
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            record = json.loads(content.metadata()["record"])
            for key in content.keys():  # noqa: SIM118 (it is no mapping)
                part, _, name = key.partition("/")
                parts[part][name] = content.get_tensor(key)
    except Exception as error:  # whatever is wrong with it, training can start anew
        _log.warning("%s cannot be read (%s): training starts anew", file, error)
        return None
    return Snapshot(record=record, **parts)
