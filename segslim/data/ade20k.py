"""ADE20K's scene parsing benchmark (Zhou et al., 2017): indoor and outdoor scenes, 150 classes."""

from dataclasses import dataclass, replace
from pathlib import Path

from segslim.data.files import paired, require_folder, stem
from segslim.data.source import Pair
from segslim.data.stored import Stored

FOLDERS = {"train": "training", "val": "validation"}
ARCHIVE = "ADEChallengeData2016"


@dataclass(frozen=True)
class Ade20k(Stored):
    """ADEChallengeData2016: `images/{training,validation}` and `annotations/{training,validation}` in `root`.

    Its labels hold 0 for what is no class, and the classes from 1.
    """

    root: str | Path

    def listed(self, split: str, strict: bool) -> list[Pair]:
        root = require_folder(Path(self.root).expanduser(), f"{ARCHIVE}'s folders images and annotations")
        inner = root / ARCHIVE if (root / ARCHIVE).is_dir() else root
        images = require_folder(inner / "images" / FOLDERS[split], f"{ARCHIVE}'s images")
        labels = require_folder(inner / "annotations" / FOLDERS[split], f"{ARCHIVE}'s labels")
        return [replace(pair, label_offset=-1) for pair in paired(images, labels, stem, stem, strict)]
