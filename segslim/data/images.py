"""The one place that opens images and labels: for checks, training, pictures and prediction. It needs no Paddle."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segslim.errors import UserError
from segslim.files import open_regular

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MOST_PIXELS = 100_000_000  # 10,000 x 10,000: more take gigabytes as float32, each worker and step of the augmentation
IGNORED = 255  # the class id of a number that a label's offset takes below 0
EXIF_ORIENTATION = 0x0112

# PIL's modes of files that OpenCV makes colours of eight bits, and what that changes (None: nothing).
CONVERSIONS: dict[str, str | None] = {
    **dict.fromkeys(("1", "P", "RGB", "RGBX", "CMYK", "YCbCr")),
    "L": "is grey: read as three equal channels",
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa"), "has alpha: it is dropped"),
    **dict.fromkeys(("I;16", "I;16B", "I;16L"), "has 16 bits a channel: read as 8"),
}


@dataclass(frozen=True)
class ImageInfo:
    """The (width, height) in pixels that `read_image` gives, and what its conversion to RGB changes, if anything."""

    size: tuple[int, int]
    conversion: str | None


def list_images(folder: Path) -> list[Path]:
    """Every image file at any depth below the folder, sorted, without hidden ones (`.name`)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def inspect_image(path: Path, where: str = "") -> ImageInfo:
    """Decodes an image to see that it is complete, without keeping its pixels.

    Raises `UserError`, naming the file and `where` it is listed, for a file that is missing, truncated, no image, over
    `MOST_PIXELS`, or has channels of other than 8 or 16 bits.
    """
    with _opened("image", path, where) as image:
        # PIL calls a PNG of 48 bits "RGB" and, in some versions, a grey PNG of 16 bits "I".
        deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        mode = "I;16" if deep or (image.mode == "I" and image.format == "PNG") else image.mode
        if mode not in CONVERSIONS:
            raise file_error("image", path, f"has pixels of kind {mode}: save it with 8 or 16 bits a channel", where)
        width, height = image.size
        # OpenCV applies the rotation that the camera noted.
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        # OpenCV fills up a truncated JPEG with grey and reports nothing, PIL raises. At an eighth of the size, which
        # JPEG allows, that takes a fraction of the time.
        image.draft("RGB", (1, 1))
        image.load()
    return ImageInfo((height, width) if turned else (width, height), CONVERSIONS[mode])


def read_image(path: Path, where: str = "", *, inspected: bool = False) -> NDArray[np.uint8]:
    """Reads H,W,3 RGB: grey becomes three channels, alpha is dropped, 16 bits become 8, EXIF's rotation is applied.

    Args:
        path: The image file.
        where: Where a user finds the file's name, such as `train_list.txt:12`, for errors.
        inspected: The file has passed `inspect_image`, as every file of a data set has before training; it is not
            decoded twice.

    Raises:
        UserError: As `inspect_image`, and for a file that OpenCV cannot read.
    """
    import cv2  # here: a plan only lists files, and OpenCV takes a tenth of a second to import

    if not inspected:
        inspect_image(path, where)
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise file_error("image", path, "cannot be read by OpenCV: save it as PNG or JPEG", where)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_label(path: Path, offset: int = 0, where: str = "") -> NDArray[Any]:
    """Class ids H,W of a label file: grey levels or palette indices plus `offset`; ids below 0 become `IGNORED`.

    Raises `UserError`, naming the file and `where` it is listed, for a file that is missing, truncated, no image, over
    `MOST_PIXELS`, or not of one channel of whole numbers.
    """
    with _opened("label", path, where) as opened:
        label = np.array(opened)
    if label.ndim != 2:
        raise file_error("label", path, f"has {label.shape[2]} channels: give one channel of class ids", where)
    if label.dtype == bool:
        label = label.astype(np.uint8)
    if label.dtype.kind not in "iu":
        raise file_error("label", path, f"holds numbers of type {label.dtype}: give whole numbers", where)
    if offset == 0:
        return label
    shifted = label.astype(np.int64) + offset
    shifted[shifted < 0] = IGNORED
    return shifted if shifted.max(initial=0) > 255 else shifted.astype(np.uint8)


def file_error(kind: str, path: Path, fault: str, where: str = "") -> UserError:
    """The error `WHERE: the image PATH is ...`; without WHERE if the file is in no list."""
    listed = f"{where}: " if where and where != str(path) else ""
    return UserError(f"{listed}the {kind} {path} {fault}")


@contextmanager
def _opened(kind: str, path: Path, where: str) -> Iterator[Image.Image]:
    """The file with its header read: pixels are decoded when they are asked for, and their faults reported here."""
    too_large = file_error(kind, path, f"has over {MOST_PIXELS // 1_000_000} million pixels: cut it into pieces", where)
    try:
        with open_regular(path) as stream, Image.open(stream) as image:
            if image.width * image.height > MOST_PIXELS:
                raise too_large
            yield image
    except Image.DecompressionBombError:  # PIL's own limit, of the header's size
        raise too_large from None
    except FileNotFoundError:
        raise file_error(kind, path, "does not exist: correct its name or dataset.root", where) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        raise file_error(kind, path, f"cannot be read ({reason}): replace it or leave it out", where) from None
