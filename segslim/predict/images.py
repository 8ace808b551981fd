"""Image files in, masks and overlays out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segslim.colours import Colour, blend
from segslim.data.images import list_images, read_image
from segslim.errors import UserError

__all__ = ["Job", "jobs_of", "read_image", "write_results"]

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Job:
    """An image and the files that are made of it."""

    image: Path
    mask: Path
    overlay: Path


def jobs_of(source: Path, output: Path) -> list[Job]:
    """One job for an image file, or one for each image at any depth in a folder; files in `output` are left out.

    Results have their image's name; of two images that differ only in the suffix, `a.jpg.png` and `a.png.png`.
    Raises UserError for a path that does not exist and a folder without images.
    """
    if source.is_dir():
        images = [path for path in list_images(source) if not path.resolve().is_relative_to(output.resolve())]
        names = [path.relative_to(source) for path in images]
        if not images:
            raise UserError(f"the folder {source} holds no image (.jpg, .png, .bmp, .tif, .webp)")
    elif source.is_file():
        images, names = [source], [Path(source.name)]
    else:
        raise UserError(f"{source} does not exist: give an image or a folder of images")
    alike = Counter(name.with_suffix("") for name in names)
    stems = [str(name if alike[name.with_suffix("")] > 1 else name.with_suffix("")) for name in names]
    return [
        Job(image, output / "masks" / f"{name}.png", output / "overlays" / f"{name}.jpg")
        for image, name in zip(images, stems, strict=True)
    ]


def write_results(job: Job, image: NDArray[np.uint8], ids: NDArray[np.uint8], colours: Sequence[Colour]) -> None:
    """Writes the mask, a PNG of class ids with the `colours` as its palette, and the overlay, a JPEG.

    Raises UserError for a folder that cannot be written.
    """
    mask = Image.fromarray(ids)
    mask.putpalette([level for colour in colours for level in colour])
    try:
        for file in (job.mask, job.overlay):
            file.parent.mkdir(parents=True, exist_ok=True)
        mask.save(job.mask)
        Image.fromarray(blend(image, ids, colours)).save(job.overlay, quality=JPEG_QUALITY)
    except OSError as error:
        raise UserError(f"cannot write to {job.mask.parent} ({error.strerror}): give another --output") from None
