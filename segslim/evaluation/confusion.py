"""Counts which class was taken for which, and what follows from the counts: IoU, accuracy, kappa and Dice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError

OF_PREDICTIONS = ("the network predicts", "does dataset.num_classes fit the network?")
OF_LABELS = ("a label holds", "mend the label or set dataset.num_classes")


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1 (kappa: -1..1), over all pixels counted.

    `class_iou` has None for a class that is in no label and no prediction; `miou` and `dice` are means over the other
    classes. PaddleSeg's `mean_iou` counts such a class as 0 instead; the two agree when every class occurs. `kappa` is
    Cohen's, 1 where labels and predictions know a single class and agree.
    """

    miou: float
    class_iou: tuple[float | None, ...]
    accuracy: float
    kappa: float
    dice: float


def mean_iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """`Scores.miou` of each of the confusion matrices ..., label, prediction; nan where nothing was counted."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(-1) + counts.sum(-2) - hits
    present = union > 0
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

        Raises `UserError` for unequal shapes, for a prediction out of 0..num_classes-1 at any pixel, and for such a
        label at a pixel that is not ignored.
        """
        if prediction.shape != label.shape:
            raise UserError(
                f"a prediction of shape {prediction.shape} cannot be compared with a label of {label.shape}"
            )
        if label.size == 0:
            return
        require_classes(prediction, self.num_classes, *OF_PREDICTIONS)
        ignored = label == self.ignore_index
        known = np.where(ignored, 0, label)
        require_classes(known, self.num_classes, *OF_LABELS)
        cells = known.astype(np.intp)
        cells *= self.num_classes
        cells += prediction.astype(np.intp, copy=False)
        cells[ignored] = self.counts.size
        self.counts += np.bincount(cells.ravel(), minlength=self.counts.size + 1)[:-1].reshape(self.counts.shape)

    def scores(self) -> Scores:
        """The scores of everything counted so far. Raises `UserError` when nothing was."""
        total = int(self.counts.sum())
        if total == 0:
            raise UserError("no labelled pixel to evaluate on: the validation labels are empty or ignored as a whole")
        hits = np.diag(self.counts).astype(np.float64)
        labelled, predicted = self.counts.sum(1).astype(np.float64), self.counts.sum(0).astype(np.float64)
        present = labelled + predicted > 0
        iou = hits[present] / (labelled + predicted - hits)[present]
        by_class = dict(zip(np.flatnonzero(present).tolist(), iou.tolist(), strict=True))
        accuracy = hits.sum() / total
        by_chance = float(labelled @ predicted) / total**2
        return Scores(
            miou=float(mean_iou(self.counts)),
            class_iou=tuple(by_class.get(index) for index in range(self.num_classes)),
            accuracy=float(accuracy),
            kappa=float((accuracy - by_chance) / (1 - by_chance)) if by_chance < 1 else 1.0,
            dice=float((2 * hits[present] / (labelled + predicted)[present]).mean()),
        )


def require_classes(ids: NDArray[Any], num_classes: int, what: str, remedy: str) -> None:
    """Raises `UserError` when one of at least one class id is out of 0..num_classes-1."""
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or most >= num_classes:
        stranger = least if least < 0 else most
        raise UserError(f"{what} class {stranger}, but there are classes 0 to {num_classes - 1}: {remedy}")
