"""PASCAL VOC 2012 (Everingham et al., 2015): everyday photographs, 20 kinds of objects and the background."""

from dataclasses import dataclass
from pathlib import Path

from segslim.data.files import existing, lines_of, require_folder
from segslim.data.identity import digest_of_pairs
from segslim.data.source import SPLITS, Pair, Progress
from segslim.errors import UserError


@dataclass(frozen=True)
class Voc:
    """JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val}.txt in `root` or in its folder VOC2012.

    `augmented` adds to the training images those of aug.txt, with labels in SegmentationClassAug (Hariharan et al.,
    2011), as PaddleSeg's tools/data/voc_augment.py writes them.
    """

    root: str | Path
    augmented: bool = False

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the images' and labels' bytes in the order of the lists."""
        return digest_of_pairs({split: self._listed(split) for split in SPLITS}, cache, strict)

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Nothing has to be made: the files stay where they are."""

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of a split. Raises `UserError` for a missing root, list, image or label."""
        return existing(self._listed(split), strict)

    def _listed(self, split: str) -> list[Pair]:
        pairs = self._named(split, "SegmentationClass")
        if split == "train" and self.augmented:
            pairs += self._named("aug", "SegmentationClassAug")
        return pairs

    def _named(self, name: str, labels: str) -> list[Pair]:
        root = require_folder(Path(self.root).expanduser(), "PASCAL VOC's folder VOC2012")
        year = next((found for found in (root / "VOC2012", root / "VOCdevkit" / "VOC2012") if found.is_dir()), root)
        lists = require_folder(year / "ImageSets" / "Segmentation", "PASCAL VOC's lists train.txt and val.txt")
        list_file = lists / f"{name}.txt"
        if not list_file.is_file():
            raise UserError(
                f"the list file {list_file} does not exist: set dataset.root to a folder that holds VOC2012"
            )
        numbered = [(n, line.strip()) for n, line in enumerate(lines_of(list_file), start=1) if line.strip()]
        if not numbered:
            raise UserError(f"the list file {list_file} is empty: it needs the name of one image a line")
        return [
            Pair(year / "JPEGImages" / f"{image}.jpg", year / labels / f"{image}.png", number, list_file)
            for number, image in numbered
        ]
