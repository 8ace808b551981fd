"""Looks at every file of a data set once, so that a bad one is named before any work starts."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segslim.data.files import missing_file
from segslim.data.labels import as_classes
from segslim.data.source import Pair, Progress
from segslim.errors import UserError

log = logging.getLogger(__name__)

EXIF_ORIENTATION = 0x0112
SMALLEST_SIDE = 8  # pixels; a network's first layers alone make one of so many
MOST_PIXELS = 100_000_000  # 10,000 x 10,000: more take gigabytes as float32, each worker and step of the augmentation
# What OpenCV, which reads for training, makes colours of eight bits without a loss, by PIL's names.
COLOURS = ("1", "P", "RGB", "RGBX", "CMYK", "YCbCr")
CHANGED = {
    "L": "is grey: read as three equal channels",
    **dict.fromkeys(("LA", "PA", "RGBA"), "has alpha: it is dropped"),
    **dict.fromkeys(("I", "I;16", "I;16B", "I;16L"), "has 16 bits a channel: read as 8"),
}


@dataclass(frozen=True)
class ImageSize:
    """How many images have a size (pixels)."""

    width: int
    height: int
    images: int


@dataclass(frozen=True)
class DatasetSummary:
    """What is in a list of pairs: image sizes, most frequent first, and pixels per class and ignored."""

    pairs: int
    sizes: tuple[ImageSize, ...]
    class_pixels: tuple[int, ...]
    ignored_pixels: int


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int,
    ignore_index: int = 255,
    progress: Progress | None = None,
    on_fault: Callable[[int, UserError], None] | None = None,
) -> DatasetSummary:
    """Decodes every image and label.

    Raises `UserError`, naming the file and the line of its list, for a file that is missing, cannot be decoded or is
    listed before, for sizes that are too small, too large or not those of the label, a label with more than one channel
    or without a class, and a label value that is neither a class (0 to `num_classes` - 1) nor `ignore_index`. With
    `on_fault` that is called instead, with the pair's position, and the summary is of the others.
    """
    sizes: dict[tuple[int, int], int] = {}
    counts = np.zeros(num_classes, np.int64)
    ignored, good = 0, 0
    changes: dict[str, list[Pair]] = {}
    repeated = _repeated(pairs)
    with ThreadPoolExecutor() as pool:
        results = pool.map(
            lambda at: repeated.get(at) or _checked(pairs[at], num_classes, ignore_index), range(len(pairs))
        )
        for at, found in enumerate(results):
            if isinstance(found, _Checked):
                good += 1
                sizes[found.size] = sizes.get(found.size, 0) + 1
                counts += found.class_pixels
                ignored += found.ignored_pixels
                if found.change:
                    changes.setdefault(found.change, []).append(pairs[at])
            elif on_fault is not None:
                on_fault(at, found)
            else:
                pool.shutdown(cancel_futures=True)
                raise found
            if progress is not None:
                progress(at + 1, len(pairs))
    for change, (first, *others) in changes.items():
        more = f"; so do {len(others)} more" if others else ""
        log.warning("%s: the image %s %s%s", first.where, first.image, change, more)
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        log.warning("no pixel of %d labels has the class%s %s", good, "es" * (len(absent) > 1), absent)
    by_count = sorted(sizes.items(), key=lambda item: -item[1])
    listed = tuple(ImageSize(width, height, images) for (width, height), images in by_count)
    return DatasetSummary(good, listed, tuple(counts.tolist()), ignored)


@dataclass(frozen=True)
class _Checked:
    """A pair without fault."""

    size: tuple[int, int]
    class_pixels: NDArray[np.int64]
    ignored_pixels: int
    change: str | None  # what reading changes of the image


def _repeated(pairs: Sequence[Pair]) -> dict[int, UserError]:
    """An error for every pair whose image an earlier one has."""
    first: dict[str, Pair] = {}
    errors = {}
    for at, pair in enumerate(pairs):
        earlier = first.setdefault(os.path.normpath(pair.image), pair)
        if earlier is not pair:
            errors[at] = UserError(f"{pair.where}: the image {pair.image} is that of line {earlier.line}: remove one")
    return errors


def _checked(pair: Pair, num_classes: int, ignore_index: int) -> _Checked | UserError:
    try:
        return _check_pair(pair, num_classes, ignore_index)
    except UserError as error:
        return error


def _check_pair(pair: Pair, num_classes: int, ignore_index: int) -> _Checked:
    with _opened(pair, "image") as image:
        change = _change(pair, image)
        image.load()
        size = _size_as_loaded(image)
    with _opened(pair, "label") as opened:
        label = np.array(opened)
    if label.ndim != 2:
        raise UserError(
            f"{pair.where}: the label {pair.label} has {label.shape[2]} channels: give one channel of class numbers"
        )
    if size != (label.shape[1], label.shape[0]):
        raise UserError(
            f"{pair.where}: the label {pair.label} is {label.shape[1]} x {label.shape[0]} but its image is "
            f"{size[0]} x {size[1]} pixels: make them one size"
        )
    return _Checked(size, *_count(pair, label, num_classes, ignore_index), change)


@contextmanager
def _opened(pair: Pair, kind: str) -> Iterator[Image.Image]:
    """A file of which only the header is read, until its pixels are asked for.

    PIL reports a truncated JPEG; OpenCV, which reads for training, fills it up with grey.
    """
    path = pair.image if kind == "image" else pair.label
    try:
        with Image.open(path) as image:
            _require_size(pair, kind, image)
            yield image
    except FileNotFoundError:
        raise missing_file(pair, path) from None
    except Image.DecompressionBombError:
        raise _too_large(pair, kind, "more than PIL opens") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = "no image format that is known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{pair.where}: cannot read the {kind} {path} ({reason}): replace it or leave it out") from None


def _require_size(pair: Pair, kind: str, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large(pair, kind, f"{width} x {height}")
    if min(image.size) < SMALLEST_SIDE:
        path = pair.image if kind == "image" else pair.label
        raise UserError(
            f"{pair.where}: the {kind} {path} is {width} x {height} pixels: no side may be less than {SMALLEST_SIDE}"
        )


def _too_large(pair: Pair, kind: str, size: str) -> UserError:
    path, most = pair.image if kind == "image" else pair.label, MOST_PIXELS // 1_000_000
    return UserError(f"{pair.where}: the {kind} {path} is {size} pixels, over {most} million: cut it to pieces")


def _change(pair: Pair, image: Image.Image) -> str | None:
    """What reading changes of an image. Raises `UserError` for pixels that have no meaning as colours of eight bits."""
    deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # PIL calls a PNG of 48 bits "RGB"
    if deep or image.mode in CHANGED:
        return CHANGED["I;16" if deep else image.mode]
    if image.mode not in COLOURS:
        raise UserError(
            f"{pair.where}: the image {pair.image} has pixels of kind {image.mode}: save it with 8 or 16 bits a channel"
        )
    return None


def _size_as_loaded(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the rotation that the camera noted in EXIF, which OpenCV applies when it reads."""
    width, height = image.size
    return (height, width) if image.getexif().get(EXIF_ORIENTATION, 1) >= 5 else (width, height)


def _count(pair: Pair, stored: NDArray[Any], num_classes: int, ignore_index: int) -> tuple[NDArray[np.int64], int]:
    label = as_classes(stored, pair).astype(np.int64)
    counts = np.bincount(label.ravel(), minlength=num_classes)
    ignored = int(counts[ignore_index]) if 0 <= ignore_index < len(counts) else 0
    if 0 <= ignore_index < len(counts):
        counts[ignore_index] = 0
    strangers = np.flatnonzero(counts[num_classes:]) + num_classes
    if len(strangers):
        row, column = np.argwhere(label == strangers[0])[0]
        taken_for = f" (class {strangers[0]})" if pair.label_offset else ""
        raise UserError(
            f"{pair.where}: the label {pair.label} holds the value {stored[row, column]}{taken_for} at row {row}, "
            f"column {column}: no class (0 to {num_classes - 1}) and not the ignored {ignore_index}; mend it or set "
            "dataset.num_classes"
        )
    if not counts.any():
        raise UserError(
            f"{pair.where}: the label {pair.label} holds nothing but the ignored {ignore_index}: leave it out"
        )
    return counts[:num_classes], ignored
