"""Reads every file of a data set once, so that a bad one is named before any work starts."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segslim.data.images import DARK, ImageInfo, inspect_image
from segslim.data.source import Pair, Progress
from segslim.errors import UserError

SMALLEST_SIDE = 8  # pixels: a network's first layers reduce that to one


@dataclass(frozen=True)
class ImageSize:
    """How many images have a size (pixels)."""

    width: int
    height: int
    images: int


@dataclass(frozen=True)
class DatasetSummary:
    """What is in a list of pairs: image sizes, most frequent first, pixels per class and ignored, and sentences on what
    may be a mistake.
    """

    pairs: int
    sizes: tuple[ImageSize, ...]
    class_pixels: tuple[int, ...]
    ignored_pixels: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Contents:
    """What is in a pair without a fault."""

    image: ImageInfo
    class_pixels: NDArray[np.int64]
    ignored_pixels: int


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int,
    ignore_index: int = 255,
    progress: Progress | None = None,
    on_fault: Callable[[int, UserError], None] | None = None,
) -> DatasetSummary:
    """Decodes every image and label.

    Args:
        pairs: The images and labels to check.
        num_classes: Labels hold 0 to `num_classes` - 1.
        ignore_index: The one other number that labels may hold.
        progress: Called after each pair.
        on_fault: Called with a faulty pair's position and error, instead of raising it; the summary is of the others.

    Raises:
        UserError: Naming the file and its line in the list: for a file that is missing, truncated or listed twice, a
            size that is too small, too large or not that of the label, and a label with several channels, without a
            class, or with a number that is neither a class nor `ignore_index`.
    """
    repeated = _repeated(pairs)

    def check(position: int) -> _Contents | UserError:
        try:
            return repeated.get(position) or _check_pair(pairs[position], num_classes, ignore_index)
        except UserError as error:
            return error

    sound: list[tuple[Pair, _Contents]] = []
    with ThreadPoolExecutor() as pool:
        for position, outcome in enumerate(pool.map(check, range(len(pairs)))):
            if isinstance(outcome, _Contents):
                sound.append((pairs[position], outcome))
            elif on_fault is not None:
                on_fault(position, outcome)
            else:
                pool.shutdown(cancel_futures=True)
                raise outcome
            if progress is not None:
                progress(position + 1, len(pairs))
    return _summary(sound, num_classes, ignore_index)


def _summary(sound: Sequence[tuple[Pair, _Contents]], num_classes: int, ignore_index: int) -> DatasetSummary:
    """Counts what is in the pairs. Raises UserError where all images would be nearly black."""
    counts = sum((contents.class_pixels for _, contents in sound), np.zeros(num_classes, np.int64))
    ignored = sum(contents.ignored_pixels for _, contents in sound)
    sizes = Counter(contents.image.size for _, contents in sound).most_common()
    deep = [(pair, contents.image.brightest) for pair, contents in sound if contents.image.brightest is not None]
    brightest = max((value for _, value in deep), default=DARK)
    if brightest < DARK:
        white = (1 << brightest.bit_length()) - 1
        raise deep[0][0].error(
            "image",
            f"has 16 bits, of which the data set uses no value above {brightest}: it would be nearly black; give"
            f" dataset.max_value={white}, or 65535 if it is as dark as that",
        )
    labels = sum(pair.label is not None for pair, _ in sound)
    warnings = [*_conversions(sound), *_lossy_labels(sound), *_absent_classes(counts, ignored, labels, ignore_index)]
    return DatasetSummary(
        pairs=len(sound),
        sizes=tuple(ImageSize(width, height, images) for (width, height), images in sizes),
        class_pixels=tuple(counts.tolist()),
        ignored_pixels=ignored,
        warnings=tuple(warnings),
    )


def _conversions(sound: Sequence[tuple[Pair, _Contents]]) -> Iterator[str]:
    for conversion in sorted({contents.image.conversion for _, contents in sound if contents.image.conversion}):
        first, *others = [pair for pair, contents in sound if contents.image.conversion == conversion]
        more = f" (and {len(others)} more)" if others else ""
        yield f"{first.where}: the image {first.image}{more} {conversion}"


def _lossy_labels(sound: Sequence[tuple[Pair, _Contents]]) -> Iterator[str]:
    lossy = [pair for pair, _ in sound if pair.label is not None and pair.label.suffix.lower() in (".jpg", ".jpeg")]
    if lossy:
        more = f" (and {len(lossy) - 1} more)" if len(lossy) > 1 else ""
        yield (
            f"{lossy[0].where}: the label {lossy[0].label}{more} is a JPEG, which does not keep numbers as they were:"
            " classes may be others along edges; save labels as PNG"
        )


def _absent_classes(counts: NDArray[np.int64], ignored: int, labels: int, ignore_index: int) -> Iterator[str]:
    """Of classes without a pixel; and that what is ignored may be one of them, as in masks of 0 and 255."""
    absent = [at for at in np.flatnonzero(counts == 0).tolist() if at != ignore_index]
    if not absent or not labels:
        return
    text = f"no pixel of {labels} labels has the class{'es' * (len(absent) > 1)} {absent}"
    if len(absent) == len(counts) - 1:
        text += f"; with class {int(counts.argmax())} alone there is nothing to learn, and any network scores 1"
    if ignored and (len(absent) == 1 or len(absent) == len(counts) - 1):
        share = ignored / (ignored + int(counts.sum()))
        text += (
            f"; {share:.1%} of the pixels are {ignore_index}, which is ignored: if it stands for class {absent[0]},"
            f" give 'dataset.label_map={{{ignore_index}: {absent[0]}}}'"
        )
    yield text


def _repeated(pairs: Sequence[Pair]) -> dict[int, UserError]:
    """An error for every pair whose image an earlier pair has, by position."""
    first: dict[str, Pair] = {}
    errors = {}
    for position, pair in enumerate(pairs):
        earlier = first.setdefault(os.path.normpath(pair.image), pair)
        if earlier is not pair:
            errors[position] = pair.error("image", f"is also that of line {earlier.line}: remove one of them")
    return errors


def _check_pair(pair: Pair, num_classes: int, ignore_index: int) -> _Contents:
    info = inspect_image(pair.image, pair.where, pair.reading)
    width, height = info.size
    if min(info.size) < SMALLEST_SIDE:
        raise pair.error("image", f"is {width} x {height} pixels: no side may be less than {SMALLEST_SIDE}")
    if pair.label is None:
        return _Contents(info, np.zeros(num_classes, np.int64), 0)
    label = pair.read_label().astype(np.int64)
    if num_classes > 1 and label.shape == (height, width * num_classes):
        problem = f"is {num_classes} times as wide as its image, a mask for each class, as in multi-label segmentation"
        raise pair.error("label", f"{problem}: not supported; give a label with one class for each pixel")
    if label.shape != (height, width):
        sizes = f"is {label.shape[1]} x {label.shape[0]} but its image is {width} x {height} pixels"
        turned = " as its EXIF orientation turns it: save the image without it, or turn the label"
        raise pair.error("label", f"{sizes}{turned if info.turned else ': give both the same size'}")
    valid = (label >= 0) & (label < num_classes) | (label == ignore_index)
    if not valid.all():
        row, column = np.argwhere(~valid)[0]
        class_id = label[row, column]
        number = class_id - pair.label_offset
        meaning = f" (class {class_id})" if pair.label_offset else ""
        raise pair.error(
            "label",
            f"holds the value {number}{meaning} at row {row}, column {column}: not a class (0 to {num_classes - 1})"
            f" and not the ignored {ignore_index}; correct it, give 'dataset.label_map={{{number}: CLASS}}', or set"
            " dataset.num_classes",
        )
    counted = label[label != ignore_index]
    if not counted.size:
        raise pair.error("label", f"holds nothing but the ignored {ignore_index}: leave it out")
    return _Contents(info, np.bincount(counted, minlength=num_classes), label.size - counted.size)
