"""The one place that opens images and labels: for checks, training, pictures and prediction. It needs no Paddle."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segslim.errors import UserError
from segslim.files import open_regular

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp"})
MOST_PIXELS = 100_000_000  # 10,000 x 10,000: more take gigabytes as float32, each worker and step of the augmentation
IGNORED = 255  # the class id of a number that a label's offset takes below 0
TIFF = (".tif", ".tiff")
EXIF_ORIENTATION = 0x0112
DARK = 1 << 14  # images of 16 bits whose brightest value is below were made with 10, 12 or 14

# PIL's modes of files that OpenCV makes colours of eight bits, and what that changes (None: nothing).
CONVERSIONS: dict[str, str | None] = {
    **dict.fromkeys(("1", "P", "RGB", "RGBX", "CMYK", "YCbCr")),
    "L": "is grey: read as three equal channels",
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa"), "has alpha: it is dropped"),
    **dict.fromkeys(("I;16", "I;16B", "I;16L"), "has 16 bits a channel: read as 8"),
}


@dataclass(frozen=True)
class Reading:
    """How the files of a data set become arrays.

    Args:
        channels: of an image. Of 3 and 1, files of any number of colours are converted.
        max_value: what becomes 255; None: 255 of 8 bits and 65535 of 16.
        label_map: {number in a label file: class id}; other numbers stay.
        ignored: the class id of a number that a label's offset takes below 0.
    """

    channels: int = 3
    max_value: float | None = None
    label_map: Mapping[int, int] = field(default_factory=dict, hash=False)
    ignored: int = 255

    def is_plain(self, path: Path) -> bool:
        """Whether an image is read by OpenCV as PaddleSeg reads it, to colours or grey of 8 bits."""
        return self.channels in (1, 3) and self.max_value is None and path.suffix.lower() != ".npy"


PLAIN = Reading()


@dataclass(frozen=True)
class ImageInfo:
    """What `read_image` will give: (width, height) in pixels, what a conversion changes, if anything, whether EXIF
    turns the image by 90 degrees, and the brightest value in a file of 16 bits.
    """

    size: tuple[int, int]
    conversion: str | None
    turned: bool = False
    brightest: int | None = None


def list_images(folder: Path) -> list[Path]:
    """Every image file at any depth below the folder, sorted, without hidden ones (`.name`)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def inspect_image(path: Path, where: str = "", reading: Reading = PLAIN) -> ImageInfo:
    """Decodes an image to see that it is complete, without keeping its pixels.

    Raises `UserError`, naming the file and `where` it is listed, for a file that is missing, truncated, no image, over
    `MOST_PIXELS`, or has other channels than `reading` wants, or such that cannot be converted to them.
    """
    if not reading.is_plain(path) or (path.suffix.lower() in TIFF and _is_beyond_pil(path)):
        height, width, _ = _read_bands(path, where, reading).shape
        return ImageInfo((width, height), None)
    with _opened("image", path, where) as image:
        # PIL calls a PNG of 48 bits "RGB" and, in some versions, a grey PNG of 16 bits "I".
        deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        mode = "I;16" if deep or (image.mode == "I" and image.format == "PNG") else image.mode
        if mode not in CONVERSIONS:
            remedy = "save it with 8 or 16 bits a channel, or give dataset.max_value, what is to be white"
            raise file_error("image", path, f"has pixels of kind {mode}: {remedy}", where)
        conversion = CONVERSIONS[mode]
        if reading.channels == 1:
            conversion = None if mode in ("1", "L") else conversion or "has colours: read as grey"
        # OpenCV applies the rotation that the camera noted.
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        turned = orientation in range(5, 9)
        if orientation in range(2, 9):
            conversion = (
                conversion or "is turned or mirrored by its EXIF orientation, as viewers show it: so must its label be"
            )
        # OpenCV fills up a truncated JPEG with grey and reports nothing, PIL raises. At an eighth of the size, which
        # JPEG allows, that takes a fraction of the time.
        width, height = image.size
        image.draft("RGB", (1, 1))
        image.load()
        brightest = _brightest(image) if mode.startswith("I;16") else None
    return ImageInfo((height, width) if turned else (width, height), conversion, turned, brightest)


def read_image(path: Path, where: str = "", reading: Reading = PLAIN, *, inspected: bool = False) -> NDArray[Any]:
    """Reads H,W,C in 0..255: RGB where C is 3, as uint8 unless `reading` has a `max_value` or bands.

    Grey becomes three channels, alpha is dropped, 16 bits become 8, EXIF's rotation is applied.

    Args:
        path: The image file.
        where: Where a user finds the file's name, such as `train_list.txt:12`, for errors.
        reading: The channels, and the value that becomes 255.
        inspected: The file has passed `inspect_image`, as every file of a data set has before training; it is not
            decoded twice.

    Raises:
        UserError: As `inspect_image`, and for a file that OpenCV cannot read.
    """
    if not reading.is_plain(path):
        return _read_bands(path, where, reading)
    if not inspected:
        inspect_image(path, where, reading)
    grey = reading.channels == 1
    try:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise file_error("image", path, "cannot be read by OpenCV: save it as PNG or JPEG", where)
    ordered = image[..., np.newaxis] if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return ordered.astype(np.uint8, copy=False)


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """For pictures: the first three channels of H,W,C in 0..255, or the first one as grey where there are fewer."""
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return channels if channels.dtype == np.uint8 else np.clip(channels.round(), 0, 255).astype(np.uint8)


def _brightest(image: Image.Image) -> int:
    """The largest value of an image of 16 bits; PIL keeps but the upper 8 of each colour."""
    extrema: Any = image.getextrema()
    if isinstance(extrema[0], tuple):
        return max(int(high) for _, high in extrema) * 256 + 255
    return int(extrema[1])


def _read_bands(path: Path, where: str, reading: Reading) -> NDArray[Any]:
    return as_bands(_decoded("image", path, where), path, where, reading)


def as_bands(pixels: NDArray[Any], path: Path, where: str = "", reading: Reading = PLAIN) -> NDArray[Any]:
    """H,W,C with exactly `reading.channels`, scaled so that `max_value` becomes 255; uint8 where nothing is scaled.

    `pixels` are the numbers in the file `path`, or in a part of it: H,W, H,W,C or C,H,W. Raises UserError where they
    have other channels, or it is not known what is white.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim == 3 and pixels.shape[-1] != reading.channels == pixels.shape[0]:
        pixels = np.moveaxis(pixels, 0, -1)  # bands first, as rasters are kept
    if reading.channels == 3 and pixels.shape[-1] in (1, 4):
        pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[-1] == 1 else pixels[..., :3]
    if pixels.ndim != 3 or pixels.shape[-1] != reading.channels:
        raise _bands_error(path, where, pixels.shape, reading.channels)
    white = reading.max_value or {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name)
    if white is None:
        fault = f"holds numbers of type {pixels.dtype}: give dataset.max_value, what is to be white"
        raise file_error("image", path, fault, where)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise file_error("image", path, "holds numbers that are not finite: replace them", where)
    if pixels.dtype == np.uint8 and white == 255:
        return np.ascontiguousarray(pixels)
    return pixels.astype(np.float32) * np.float32(255 / white)


def _bands_error(path: Path, where: str, shape: tuple[int, ...], channels: int) -> UserError:
    bands = 1 if len(shape) == 2 else min(shape[0], shape[-1])
    remedy = f"give dataset.channels={bands}" if len(shape) <= 3 else "give an array of height, width and bands"
    return file_error("image", path, f"has {bands} bands or channels, and dataset.channels={channels}: {remedy}", where)


def _decoded(kind: str, path: Path, where: str) -> NDArray[Any]:
    """The numbers in a file as they are: H,W or H,W,C (RGB of colours), or C,H,W of a raster that is kept so."""
    pixels: NDArray[Any] | None
    if path.suffix.lower() == ".npy":
        pixels = _array_of(kind, path, where, lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    elif path.suffix.lower() in TIFF:
        pixels = _array_of(kind, path, where, lambda: _tiff(path))
    else:
        with _opened(kind, path, where) as image:
            image.load()
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # PIL has no colours of 16 bits
        if pixels is not None and pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    if pixels is None:
        raise file_error(kind, path, "cannot be read by OpenCV: save it as PNG or TIFF", where)
    return pixels


def _tiff(path: Path) -> Any:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            _require_pixels(file.series[0].shape)
            return file.series[0].asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # of four bands at most
        if pixels is None:
            named = re.search(r"COMPRESSION\.(\w+)", str(error))
            compression = f", {named[1]}," if named else ""
            raise ValueError(
                f"its compression{compression} needs a further package: type"
                " `uv pip install imagecodecs`, or save it without compression"
            ) from None
        return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]


def _array_of(kind: str, path: Path, where: str, read: Callable[[], Any]) -> NDArray[Any]:
    try:
        open_regular(path).close()
        array = np.asarray(read())
        _require_pixels(array.shape)
        return array
    except FileNotFoundError:
        raise file_error(kind, path, "does not exist: correct its name or dataset.root", where) from None
    except Exception as error:  # a torn or hostile file: each reader has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise file_error(kind, path, f"cannot be read ({reason}): replace it or leave it out", where) from None


def _require_pixels(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of {len(shape)} axes, {shape}: it should have height and width, and bands")
    if math.prod(shape) / min(shape[0], shape[-1]) > MOST_PIXELS:
        raise ValueError(f"over {MOST_PIXELS // 1_000_000} million pixels: cut it into pieces")


def read_label(path: Path, offset: int = 0, where: str = "", reading: Reading = PLAIN) -> NDArray[Any]:
    """Class ids H,W of a label file, whose numbers are grey levels or palette indices.

    Those in `reading.label_map` become what it says, the others are added to `offset`; where there is one, ids below 0
    become `reading.ignored`.

    Raises `UserError`, naming the file and `where` it is listed, for a file that is missing, truncated, no image, over
    `MOST_PIXELS`, or not of one channel of whole numbers.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy" or (suffix in TIFF and _is_beyond_pil(path)):
        label = _decoded("label", path, where)
    else:
        with _opened("label", path, where) as opened:
            label = np.array(opened)
    if label.ndim == 3 and 1 in (label.shape[0], label.shape[2]):  # a single band, as rasters keep it
        label = label[0] if label.shape[0] == 1 else label[..., 0]
    if label.ndim != 2:
        remedy = "give one channel of class ids, as dataset.classes numbers them"
        raise file_error("label", path, f"has {label.shape[-1]} channels, as a picture has: {remedy}", where)
    if label.dtype == bool:
        label = label.astype(np.uint8)
    if label.dtype.kind not in "iu":
        raise file_error("label", path, f"holds numbers of type {label.dtype}: give whole numbers", where)
    if offset == 0 and not reading.label_map:
        return label
    ids = label.astype(np.int64) + offset
    if offset:
        ids[ids < 0] = reading.ignored
    for number, class_id in reading.label_map.items():
        ids[label == number] = class_id
    return ids.astype(np.uint8) if ids.min(initial=0) >= 0 and ids.max(initial=0) <= 255 else ids


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


def _is_beyond_pil(path: Path) -> bool:
    """Whether a TIFF is of a kind that PIL does not know: many bands, integers of 64 bits."""
    try:
        with open_regular(path) as stream:
            Image.open(stream).close()
    except UnidentifiedImageError:
        return True
    except Exception:  # said when it is opened
        return False
    return False
