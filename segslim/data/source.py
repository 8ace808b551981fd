"""What every data set offers to the stages: an identity, preparation, and lists of image and label files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Pair:
    """One image and its label, and the line (from 1) of the list that names them.

    Where there is no list, `line` is 0 and `list_file` the folder of the images. `label_offset` is added to the numbers
    in the label file to make them class ids; what falls below 0 is ignored (labels.py).
    """

    image: Path
    label: Path
    line: int
    list_file: Path
    label_offset: int = 0

    @property
    def where(self) -> str:
        """The place a user can go to, as editors and compilers write it: `train_list.txt:12`, or else the image."""
        return f"{self.list_file}:{self.line}" if self.line else str(self.image)


class Source(Protocol):
    """A data set. Every method raises `UserError` for what a user can mend.

    Unless `strict`, an image or a label that is missing is no error: whoever asks leaves its pair out (checks.py).
    """

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Hex digest of the content: it changes when an image or a label changes, not when the data set moves.

        `cache` is a file that remembers the digests of unchanged files, so that the second call only stats them.
        """
        ...

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Writes to `folder` what `pairs` needs to find there."""
        ...

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of the split "train" or "val", after `prepare(folder)`."""
        ...
