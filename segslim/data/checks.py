"""Looks at every file of a data set once, so that a bad one is named before any work starts."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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

    @property
    def class_shares(self) -> tuple[float, ...]:
        """Each class's share of the pixels that are not ignored."""
        total = max(sum(self.class_pixels), 1)
        return tuple(pixels / total for pixels in self.class_pixels)


def check_pairs(
    pairs: Sequence[Pair], num_classes: int, ignore_index: int = 255, progress: Progress | None = None
) -> DatasetSummary:
    """Decodes every image and label.

    Raises `UserError`, naming the file and the line of its list, for a file that is missing or cannot be decoded, a
    label of another size than its image, a label with more than one channel, and a label value that is neither a
    class (0 to `num_classes` - 1) nor `ignore_index`.
    """
    sizes: dict[tuple[int, int], int] = {}
    counts = np.zeros(num_classes, np.int64)
    ignored = 0
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda pair: _check_pair(pair, num_classes, ignore_index), pairs)
        try:
            for done, (size, per_class, without_class) in enumerate(results, start=1):
                sizes[size] = sizes.get(size, 0) + 1
                counts += per_class
                ignored += without_class
                if progress is not None:
                    progress(done, len(pairs))
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        log.warning("no pixel of %d labels has the class%s %s", len(pairs), "es" * (len(absent) > 1), absent)
    by_count = sorted(sizes.items(), key=lambda item: -item[1])
    listed = tuple(ImageSize(width, height, images) for (width, height), images in by_count)
    return DatasetSummary(len(pairs), listed, tuple(counts.tolist()), ignored)


def _check_pair(pair: Pair, num_classes: int, ignore_index: int) -> tuple[tuple[int, int], NDArray[np.int64], int]:
    """The image's size, the label's pixels per class and its ignored pixels."""
    with _opened(pair, "image") as image:
        size = _size_as_loaded(image)
    with _opened(pair, "label") as opened:
        label = np.asarray(opened)
    if label.ndim != 2:
        raise UserError(
            f"{pair.where}: the label {pair.label} has {label.shape[2]} channels: give one channel of class numbers"
        )
    if size != (label.shape[1], label.shape[0]):
        raise UserError(
            f"{pair.where}: the label {pair.label} is {label.shape[1]} x {label.shape[0]} but its image is "
            f"{size[0]} x {size[1]} pixels: make them one size"
        )
    return size, *_count(pair, label, num_classes, ignore_index)


def _opened(pair: Pair, kind: str) -> Image.Image:
    """A fully decoded file. PIL reports a truncated JPEG; OpenCV, which reads for training, fills it up with grey."""
    path = pair.image if kind == "image" else pair.label
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise missing_file(pair, path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no image format that is known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{pair.where}: cannot read the {kind} {path} ({reason}): replace it or leave it out") from None
    return image


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
    return counts[:num_classes], ignored
