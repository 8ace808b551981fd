"""A folder of images beside a folder of labels, split here into training and validation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segslim.data.files import paired, require_folder, stem
from segslim.data.source import Pair
from segslim.data.stored import Stored
from segslim.errors import UserError


@dataclass(frozen=True)
class Folder(Stored):
    """`root/images` and `root/labels`, at any depth; an image's label has its path but for the suffix.

    `val_share` of the pairs, at least one, validate. Which ones depends on the seed and the paths alone, so that
    further images move few of the others.
    """

    root: str | Path
    images: str = "images"
    labels: str = "labels"
    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise UserError(f"dataset.source.val_share={self.val_share}: should be between 0 and 1, such as 0.2")

    def listed(self, split: str, strict: bool) -> list[Pair]:
        root = require_folder(Path(self.root).expanduser(), f"the folders {self.images} and {self.labels}")
        images = require_folder(root / self.images, "the images")
        labels = require_folder(root / self.labels, "the labels, named as the images")
        pairs = paired(images, labels, stem, stem, strict)
        if len(pairs) < 2:
            raise UserError(f"the folder {images} holds one image: give at least two, one of them to validate on")
        drawn = sorted(pairs, key=lambda pair: self._lot(stem(pair.image.relative_to(images))))
        count = min(max(round(len(pairs) * self.val_share), 1), len(pairs) - 1)
        chosen = set(drawn[:count])
        return [pair for pair in pairs if (pair in chosen) == (split == "val")]

    def _lot(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed}:{name}".encode()).hexdigest()
