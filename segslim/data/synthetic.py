"""A data set without a download: photographs of the back of the eye, rendered from a seed, with their optic discs."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segslim.data.layouts import FileList
from segslim.data.source import SPLITS, Pair, Progress
from segslim.errors import UserError

RENDERER_VERSION = 1
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class SyntheticFundus:
    """Fundus photographs with two classes: 0 background, 1 optic disc.

    Image i of a split depends only on (seed, split, i, size): `train_images` may grow without changing any of the
    images that are there. `size` is (width, height) in pixels.
    """

    seed: int = 0
    size: Sequence[int] = (160, 160)
    train_images: int = 160
    val_images: int = 40

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < SMALLEST_SIDE:
            raise UserError(
                f"dataset.size={list(self.size)} cannot be rendered: give [width, height] of at least {SMALLEST_SIDE}"
            )
        for key, least in (("seed", 0), ("train_images", 1), ("val_images", 1)):
            if getattr(self, key) < least:
                raise UserError(f"dataset.{key}={getattr(self, key)} is too small: give at least {least}")

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the renderer's version and of every parameter.

        Not of the pixels: releases of OpenCV and numpy round some of them (about one in a million) by one level.
        """
        return hashlib.sha256(json.dumps(["fundus", RENDERER_VERSION, asdict(self)]).encode()).hexdigest()

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Renders images and labels as PNG, with PaddleSeg's lists `train_list.txt` and `val_list.txt` beside them."""
        from segslim.data.fundus import render_fundus, write_png  # here: a plan only needs the identity, not OpenCV

        counts = dict(zip(SPLITS, (self.train_images, self.val_images), strict=True))
        width, height = self.size
        done = 0
        for split, count in counts.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            names = [f"{split}/{index:05d}.png" for index in range(count)]
            for index, name in enumerate(names):
                image, label = render_fundus((self.seed, SPLITS.index(split), index), width, height)
                write_png(folder / "images" / name, image)
                write_png(folder / "labels" / name, label)
                done += 1
                if progress is not None:
                    progress(done, sum(counts.values()))
            lines = [f"images/{name} labels/{name}\n" for name in names]
            (folder / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs that `prepare` wrote to the folder."""
        return FileList(folder, "train_list.txt", "val_list.txt").pairs(folder, split, strict)
