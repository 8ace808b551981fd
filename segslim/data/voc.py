"""PASCAL VOC 2012 (Everingham et al., 2015): everyday photographs, 20 kinds of objects and the background."""

from dataclasses import dataclass
from pathlib import Path

from segslim.data.files import lines_of, require_folder
from segslim.data.source import Pair
from segslim.data.stored import Stored
from segslim.errors import UserError


@dataclass(frozen=True)
class Voc(Stored):
    """JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val}.txt in `root` or in its folder VOC2012.

    `augmented` adds to the training images those of aug.txt, with labels in SegmentationClassAug (Hariharan et al.,
    2011), as PaddleSeg's tools/data/voc_augment.py writes them.
    """

    root: str | Path
    augmented: bool = False

    def listed(self, split: str, strict: bool) -> list[Pair]:
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
