"""ADE20K's scene parsing benchmark (Zhou et al., 2017): indoor and outdoor scenes, 150 classes."""

from dataclasses import dataclass, replace
from pathlib import Path

from segslim.data.files import existing, paired, require_folder, stem
from segslim.data.identity import digest_of_pairs
from segslim.data.source import SPLITS, Pair, Progress

FOLDERS = {"train": "training", "val": "validation"}
ARCHIVE = "ADEChallengeData2016"


@dataclass(frozen=True)
class Ade20k:
    """ADEChallengeData2016: `images/{training,validation}` and `annotations/{training,validation}` in `root`.

    Its labels hold 0 for what is no class, and the classes from 1.
    """

    root: str | Path

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the images' and labels' bytes, in the order of their names."""
        return digest_of_pairs({split: self._listed(split, strict) for split in SPLITS}, cache, strict)

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Nothing has to be made: the files stay where they are."""

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of a split, in the order of their paths."""
        return existing(self._listed(split, strict), strict)

    def _listed(self, split: str, strict: bool) -> list[Pair]:
        root = require_folder(Path(self.root).expanduser(), f"{ARCHIVE}'s folders images and annotations")
        inner = root / ARCHIVE if (root / ARCHIVE).is_dir() else root
        images = require_folder(inner / "images" / FOLDERS[split], f"{ARCHIVE}'s images")
        labels = require_folder(inner / "annotations" / FOLDERS[split], f"{ARCHIVE}'s labels")
        return [replace(pair, label_offset=-1) for pair in paired(images, labels, stem, stem, strict)]
