"""Cityscapes (Cordts et al., 2016): street scenes, 19 classes, in the folders of its own archives."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segslim.data.files import images_in, paired, require_folder
from segslim.data.source import Pair
from segslim.data.stored import Stored
from segslim.errors import UserError

IMAGE_END = "_leftImg8bit"
LABEL_END = "_gtFine_labelTrainIds"


@dataclass(frozen=True)
class Cityscapes(Stored):
    """`leftImg8bit/{train,val}/CITY/*_leftImg8bit.png` and `gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png`."""

    root: str | Path

    def listed(self, split: str, strict: bool) -> list[Pair]:
        root = require_folder(Path(self.root).expanduser(), "Cityscapes' folders leftImg8bit and gtFine")
        images = require_folder(root / "leftImg8bit" / split, "Cityscapes' images (leftImg8bit_trainvaltest.zip)")
        labels = require_folder(root / "gtFine" / split, "Cityscapes' labels (gtFine_trainvaltest.zip)")
        if not any(path.stem.endswith(LABEL_END) for path in images_in(labels)):
            raise UserError(
                f"the folder {labels} holds no *{LABEL_END}.png: make them with csCreateTrainIdLabelImgs of "
                "cityscapesscripts (pip install cityscapesscripts)"
            )
        image_key, label_key = (partial(_frame, end=end) for end in (IMAGE_END, LABEL_END))
        return paired(images, labels, image_key, label_key, strict)


def _frame(path: Path, end: str) -> str:
    """`aachen/aachen_000000_000019` of the files that belong to one frame, or "" for a file of another kind."""
    return path.with_name(path.stem.removesuffix(end)).as_posix() if path.stem.endswith(end) else ""
