"""The curve of a training: the numbers of every iteration, one line each, in the folder of its checkpoint.

Every log is drawn from it, so a log is whole also where a training went on after a kill, or was done long ago.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CURVE_FILE = "curve.csv"
NUMBERS = ("loss", "learning_rate", "images_per_second", "miou")

Told = Callable[[int, Mapping[str, float]], None]
"""Called as told(iteration, {name: value})."""


class CurveWriter:
    """Writes the curve to a file as it comes, and tells every point on.

    Where the file holds the curve of a training that was killed, the points before the first new one stay, and are
    told again.
    """

    def __init__(self, file: Path, told: Told) -> None:
        self._file, self._told = file, told
        self._stream: Any = None

    def add(self, iteration: int, numbers: Mapping[str, float]) -> None:
        if self._stream is None:
            earlier = [(i, point) for i, point in read_curve(self._file) if i < iteration]
            self._stream = self._file.open("w", encoding="utf-8", buffering=1)  # by lines: it can be followed
            self._stream.write(",".join(("iteration", *NUMBERS)) + "\n")
            for point in earlier:
                self._write(*point)
        self._write(iteration, numbers)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _write(self, iteration: int, numbers: Mapping[str, float]) -> None:
        cells = (f"{numbers[name]:.6g}" if name in numbers else "" for name in NUMBERS)
        self._stream.write(",".join((str(iteration), *cells)) + "\n")
        self._told(iteration, numbers)


def read_curve(file: Path) -> list[tuple[int, dict[str, float]]]:
    """(iteration, {name: value}) of every line; [] where there is no such file. A line torn by a kill is left out."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [(int(row["iteration"]), {name: float(row[name]) for name in NUMBERS if row[name]}) for row in rows]
