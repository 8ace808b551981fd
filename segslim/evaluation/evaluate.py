"""Scores of anything that turns images into class ids, at the labels' own resolution."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError
from segslim.evaluation.confusion import ConfusionMatrix, Scores

Run = Callable[[NDArray[np.float32]], NDArray[Any]]
Batch = tuple[NDArray[np.float32], Sequence[NDArray[Any]]]


def evaluate(
    session_run: Run,
    batches: Iterable[Batch],
    num_classes: int,
    ignore_index: int = 255,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Scores of `session_run` (images N,3,H,W -> class ids N,H',W') over batches of images and their labels.

    Each prediction is brought to its label's size by `resize_nearest`. `progress` is told the number of images done.
    Raises `UserError` for an output that is not class ids, for ids out of range, and when there is no labelled pixel.
    """
    confusion = ConfusionMatrix(num_classes, ignore_index)
    done = 0
    for images, labels in batches:
        predictions = session_run(images)
        if predictions.ndim != 3 or len(predictions) != len(images) or predictions.dtype.kind not in "iu":
            raise UserError(
                f"the model's output for images {images.shape} is {predictions.dtype} {predictions.shape}, not class "
                f"ids ({len(images)}, H, W): export it with export.output=argmax"
            )
        for prediction, label in zip(predictions, labels, strict=True):
            height, width = label.shape
            confusion.update(resize_nearest(prediction, height, width), label)
        done += len(images)
        if progress is not None:
            progress(done)
    return confusion.scores()


def resize_nearest(ids: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Class ids (H,W) at another size: each pixel takes the source pixel that its centre falls into.

    Output row i reads input row floor((i + 1/2) * H / height), in whole numbers, so that there is no rounding; where a
    centre falls on a border between two, the latter is taken. These are half-pixel centres, those of the bilinear
    resize that made the network's input (OpenCV: INTER_NEAREST_EXACT, but for those borders). OpenCV's INTER_NEAREST,
    floor(i * H / height), would move every prediction by up to half a pixel.
    """
    if ids.shape == (height, width):
        return ids
    return ids[np.ix_(_sources(ids.shape[0], height), _sources(ids.shape[1], width))]


def _sources(size: int, target: int) -> NDArray[np.intp]:
    return (2 * np.arange(target) + 1) * size // (2 * target)
