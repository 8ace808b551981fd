"""The two files that a training writes while it runs: curve.csv, for people, and a snapshot, to resume from."""

import csv
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from segslim.files import flush, open_regular

CURVE_FILE = "curve.csv"
CURVE_COLUMNS = ("loss", "learning_rate", "images_per_second", "miou")
SNAPSHOT_FILE = "training.safetensors"
_PARTS = ("weights", "optimizer", "best")
_log = logging.getLogger(__name__)


class CurveWriter:
    """Writes one line per iteration to `file`, and calls `on_point(iteration, {column: value})` for each.

    After a resume, the points that the file holds from before are kept and passed to `on_point` again. So loggers that
    draw from `on_point` show the complete curve of a training that was killed in between.
    """

    def __init__(self, file: Path, on_point: Callable[[int, Mapping[str, float]], None]) -> None:
        self._file, self._on_point = file, on_point
        self._stream: Any = None

    def add(self, iteration: int, values: Mapping[str, float]) -> None:
        """Adds a point. The first call drops the points that the file has from this iteration on."""
        points = [(iteration, values)]
        if self._stream is None:
            points = [(at, point) for at, point in read_curve(self._file) if at < iteration] + points
            self._stream = self._file.open("w", encoding="utf-8", buffering=1)  # line by line, for `tail -f`
            self._stream.write(",".join(("iteration", *CURVE_COLUMNS)) + "\n")
        for at, point in points:
            cells = (f"{point[column]:.6g}" if column in point else "" for column in CURVE_COLUMNS)
            self._stream.write(",".join((str(at), *cells)) + "\n")
            self._on_point(at, point)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def read_curve(file: Path) -> list[tuple[int, Mapping[str, float]]]:
    """Returns (iteration, {column: value}) of every line, or [] if there is no file. A torn last line is skipped."""
    if not file.exists():
        return []
    with open_regular(file) as stream:
        text = stream.read().decode("utf-8")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [(int(row["iteration"]), {name: float(row[name]) for name in CURVE_COLUMNS if row[name]}) for row in rows]


@dataclass(frozen=True)
class Snapshot:
    """A training between two iterations: arrays by name, and a `record` of plain (JSON) values."""

    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    record: Mapping[str, Any]


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Replaces the snapshot in `folder`. A process killed at any moment leaves either the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{part}/{name}": array for part in _PARTS for name, array in getattr(snapshot, part).items()}
    unfinished = folder / f"{SNAPSHOT_FILE}.unfinished"
    try:
        safetensors.numpy.save_file(arrays, unfinished, metadata={"record": json.dumps(snapshot.record)})
        flush(unfinished)
        unfinished.replace(folder / SNAPSHOT_FILE)
    except Exception:
        unfinished.unlink(missing_ok=True)  # a full disk is the usual cause: free what was written
        raise
    flush(folder)


def read_snapshot(folder: Path) -> Snapshot | None:
    """Returns the snapshot in `folder`, or None if there is none or, with a warning, if it cannot be read."""
    file = folder / SNAPSHOT_FILE
    if not file.exists():
        return None
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            record = json.loads(content.metadata()["record"])
            for key in content.keys():  # noqa: SIM118 (it is no mapping)
                part, _, name = key.partition("/")
                parts[part][name] = content.get_tensor(key)
    except Exception as error:  # whatever is wrong with the file, training can start from the beginning
        _log.warning("%s cannot be read (%s): training starts from the beginning", file, error)
        return None
    return Snapshot(record=record, **parts)
