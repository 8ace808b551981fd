"""IoU, accuracy, kappa and Dice of class ids, from a confusion matrix at the labels' own resolution."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError


@dataclass(frozen=True)
class Metrics:
    """Values in 0..1 (kappa: -1..1), over all pixels counted.

    `class_iou` has None for a class that no label has; `miou` and `dice` are means over the others, which are the same
    for any network on the same labels. To predict a class without labels costs where the label's own class is missed.
    PaddleSeg's `mean_iou` counts such a class as 0 instead; the two agree when every class occurs. `kappa` is Cohen's,
    1 where labels and predictions have a single class and agree.
    """

    miou: float
    class_iou: tuple[float | None, ...]
    accuracy: float
    kappa: float
    dice: float


def mean_iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """`Metrics.miou` of each of the confusion matrices ..., label, prediction; nan where nothing was counted."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(-1) + counts.sum(-2) - hits
    present = counts.sum(-1) > 0
    ious = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    number = present.sum(-1)
    return np.divide(ious.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


class ConfusionMatrix:
    """Accumulates, over any number of images, `counts[label, prediction]` of the pixels whose label is not ignored."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: NDArray[Any], label: NDArray[Any]) -> None:
        """Adds class ids of one shape (any shape, any integer type).

        Raises UserError for unequal shapes, for a prediction out of 0..num_classes-1 at any pixel, and for such a
        label at a pixel that is not ignored.
        """
        if prediction.shape != label.shape:
            raise UserError(
                f"a prediction of shape {prediction.shape} cannot be compared with a label of {label.shape}"
            )
        if label.size == 0:
            return
        _require_predicted_classes(prediction, self.num_classes)
        ignored = label == self.ignore_index
        known = np.where(ignored, 0, label)
        _require_labelled_classes(known, self.num_classes)
        cells = known.astype(np.intp)
        cells *= self.num_classes
        cells += prediction.astype(np.intp, copy=False)
        # ignored pixels get a cell of their own behind the matrix: faster than selecting all the others
        cells[ignored] = self.counts.size
        self.counts += np.bincount(cells.ravel(), minlength=self.counts.size + 1)[:-1].reshape(self.counts.shape)

    def metrics(self) -> Metrics:
        """The metrics of everything counted so far. Raises UserError when nothing was."""
        total = int(self.counts.sum())
        if total == 0:
            raise UserError("no labelled pixel to evaluate on: the validation labels are empty or ignored everywhere")
        hits = np.diag(self.counts).astype(np.float64)
        labelled, predicted = self.counts.sum(1).astype(np.float64), self.counts.sum(0).astype(np.float64)
        present = labelled > 0
        iou = hits[present] / (labelled + predicted - hits)[present]
        by_class = dict(zip(np.flatnonzero(present).tolist(), iou.tolist(), strict=True))
        accuracy = hits.sum() / total
        by_chance = float(labelled @ predicted) / total**2
        return Metrics(
            miou=float(mean_iou(self.counts)),
            class_iou=tuple(by_class.get(index) for index in range(self.num_classes)),
            accuracy=float(accuracy),
            kappa=float((accuracy - by_chance) / (1 - by_chance)) if by_chance < 1 else 1.0,
            dice=float((2 * hits[present] / (labelled + predicted)[present]).mean()),
        )


def evaluate(
    session_run: Callable[[NDArray[np.float32]], NDArray[Any]],
    batches: Iterable[tuple[NDArray[np.float32], Sequence[NDArray[Any]]]],
    num_classes: int,
    ignore_index: int = 255,
    progress: Callable[[int], None] | None = None,
    each: Callable[[NDArray[np.int64]], None] | None = None,
) -> Metrics:
    """Metrics of a network over labelled images, at each label's own size.

    Raises UserError for an output that is not class ids, for ids out of range, and when there is no labelled pixel.

    Args:
        session_run: images N,3,H,W to class ids N,H',W', which `resize_nearest` brings to the labels' size.
        batches: images N,3,H,W, float32, and their N labels H'',W'' of any sizes.
        num_classes: class ids are 0..num_classes-1.
        ignore_index: the label of pixels that do not count.
        progress: called with the number of images done.
        each: called with every image's own confusion matrix, [label, prediction].
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
            before = confusion.counts.copy()
            confusion.update(laid_over(prediction, label), label)
            if each is not None:
                each(confusion.counts - before)
        done += len(images)
        if progress is not None:
            progress(done)
    return confusion.metrics()


def class_counts(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """What mIoU depends on of a confusion matrix: 3, C: of each class, pixels that are right, labelled, predicted."""
    return np.stack([np.diag(confusion), confusion.sum(1), confusion.sum(0)])


def resampled_miou(counts: NDArray[np.int64], rounds: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """`rounds` values of mIoU, each over as many images as there are, drawn with replacement (Efron's bootstrap).

    The same images are drawn for the same number of them and the same seed: so the difference of two networks' values
    is paired, and says far more than their two intervals do.

    counts: `class_counts` of each image: N, 3, C.
    """
    images, _, classes = counts.shape
    random = np.random.default_rng(seed)
    drawn = random.multinomial(images, np.full(images, 1 / images), rounds).astype(np.float64)
    hits, labelled, predicted = (drawn @ counts.reshape(images, -1)).reshape(rounds, 3, classes).swapaxes(0, 1)
    union = labelled + predicted - hits
    present = union > 0
    ious = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    return np.asarray(ious.sum(1) / np.maximum(present.sum(1), 1))


def interval(samples: NDArray[np.float64]) -> tuple[float, float]:
    """What 95 % of the samples lie within."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def laid_over(ids: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Class ids (H,W) as the network gives them, at the size of a label.

    A label of an image that was padded has `size_of_input` and `steps` (segslim.data.loading.PaddedLabel): these
    changes are undone one by one, as PaddleSeg does by its `trans_info`.
    """
    steps = getattr(label, "steps", None)
    if steps is None:
        return resize_nearest(ids, *label.shape)
    return restore(resize_nearest(ids, *label.size_of_input), steps)  # type: ignore[attr-defined]


def restore(ids: NDArray[Any], steps: Sequence[tuple[int, int, bool]]) -> NDArray[Any]:
    """Class ids H,W at the size of the network's input, brought back to that of the image: each step is the (height,
    width) before a change of size, and whether that padded.
    """
    for height, width, padded in reversed(steps):
        ids = ids[:height, :width] if padded else resize_nearest(ids, height, width)
    return ids


def resize_nearest(ids: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Class ids (H,W) at another size: each pixel takes the source pixel that its centre falls into.

    Output row i reads input row floor((i + 1/2) * H / height), in integers and so without rounding; where a centre
    falls on a border between two, the latter is taken. These are half-pixel centres, those of the bilinear resize that
    made the network's input (OpenCV: INTER_NEAREST_EXACT, but for those borders). OpenCV's INTER_NEAREST,
    floor(i * H / height), would move every prediction by up to half a pixel.
    """
    if ids.shape == (height, width):
        return ids
    rows, columns = (
        (2 * np.arange(target) + 1) * size // (2 * target)
        for size, target in zip(ids.shape, (height, width), strict=True)
    )
    return ids[np.ix_(rows, columns)]


@dataclass(frozen=True)
class LabelCounts:
    """A label prepared for many predictions of `shape`: comparing one costs by its own pixels, not by the label's.

    The entries are parallel vectors: `counts` pixels of class `classes` in the label take their prediction from pixel
    `pixels` (numbered row by row). Most pixels have one entry; those on edges between classes have several.
    """

    shape: tuple[int, int]
    num_classes: int
    pixels: NDArray[np.intp]
    classes: NDArray[np.intp]
    counts: NDArray[np.float64]

    @classmethod
    def from_label(
        cls, label: NDArray[Any], shape: tuple[int, int], num_classes: int, ignore_index: int = 255
    ) -> "LabelCounts":
        """Counts a label for predictions that `resize_nearest` brings to its size.

        Raises UserError for a class that is out of range and not ignored.

        Args:
            label: class ids H,W.
            shape: height and width of the predictions.
            num_classes: class ids are 0..num_classes-1.
            ignore_index: the label of pixels that do not count.
        """
        sources = laid_over(np.arange(shape[0] * shape[1]).reshape(shape), label)
        counted = label != ignore_index
        known = label[counted].astype(np.intp)
        if known.size:
            _require_labelled_classes(known, num_classes)
        cells = np.bincount(sources[counted] * num_classes + known, minlength=shape[0] * shape[1] * num_classes)
        present = np.flatnonzero(cells)
        return cls(shape, num_classes, present // num_classes, present % num_classes, cells[present].astype(np.float64))

    def confusion(self, prediction: NDArray[np.integer]) -> NDArray[np.int64]:
        """What `ConfusionMatrix` counts, [label, prediction], for class ids of `shape` brought to the label's size.

        Raises UserError for another shape, and for a class that is out of range.
        """
        if prediction.shape != self.shape:
            raise UserError(f"a prediction has shape {prediction.shape} where {self.shape} is expected")
        _require_predicted_classes(prediction, self.num_classes)
        cells = self.classes * self.num_classes + prediction.ravel()[self.pixels]
        counts = np.bincount(cells, self.counts, self.num_classes**2)  # sums of integers: exact in float64
        return counts.astype(np.int64).reshape(self.num_classes, self.num_classes)


def _require_predicted_classes(ids: NDArray[Any], num_classes: int) -> None:
    _require_classes(ids, num_classes, "the network predicts", "does dataset.num_classes fit the network?")


def _require_labelled_classes(ids: NDArray[Any], num_classes: int) -> None:
    _require_classes(ids, num_classes, "a label holds", "correct the label or set dataset.num_classes")


def _require_classes(ids: NDArray[Any], num_classes: int, what: str, remedy: str) -> None:
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise UserError(f"{what} class {wrong}, but there are classes 0 to {num_classes - 1}: {remedy}")
