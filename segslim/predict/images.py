"""Image files in, masks and overlays out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segslim.colours import Colour, blend
from segslim.data.files import images_in
from segslim.errors import UserError

JPEG_QUALITY = 92
MOST_PIXELS = 100_000_000
# Eight or sixteen bits a channel, which OpenCV brings to three channels of eight, as in training. PIL calls a grey PNG
# of sixteen bits "I" or "I;16", depending on its version.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Job:
    """An image and the files that are made of it."""

    image: Path
    mask: Path
    overlay: Path


def jobs_of(source: Path, output: Path) -> list[Job]:
    """One job for an image file, or one for each image at any depth in a folder; what lies in `output` is passed over.

    The results are called as the image is; where two images differ in the suffix alone, `a.jpg.png` and `a.png.png`.
    Raises UserError for a path that does not exist and a folder without images.
    """
    if source.is_dir():
        images = [path for path in images_in(source) if not path.resolve().is_relative_to(output.resolve())]
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


def read_image(path: Path) -> NDArray[np.uint8]:
    """H,W,3 RGB, read by OpenCV as in training: grey becomes three channels, alpha is dropped, 16 bits become 8.

    Raises UserError for a file that is no image, is cut off, or has channels of 32 bits.
    """
    try:
        with Image.open(path) as opened:
            mode, kind = opened.mode, opened.format
            if opened.width * opened.height > MOST_PIXELS:
                raise UserError(f"has {opened.width} x {opened.height} pixels, over {MOST_PIXELS // 1_000_000} million")
            # OpenCV fills up what a cut-off JPEG lacks, and says nothing; at an eighth of the size this takes little.
            opened.draft("RGB", (1, 1))
            opened.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no image format that is known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"cannot be read ({reason})") from None
    if mode not in MODES and not (mode == "I" and kind == "PNG"):
        raise UserError(f"has pixels of kind {mode}: save it with 8 or 16 bits a channel")
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError("cannot be read by OpenCV: save it as PNG or JPEG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
