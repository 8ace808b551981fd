"""Counts which class was taken for which, and what follows from the counts: IoU, accuracy, kappa and Dice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError


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
        self._require_classes(prediction, "the network predicts", "does dataset.num_classes fit the network?")
        ignored = label == self.ignore_index
        known = np.where(ignored, 0, label)
        self._require_classes(known, "a label holds", "mend the label or set dataset.num_classes")
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
            miou=float(iou.mean()),
            class_iou=tuple(by_class.get(index) for index in range(self.num_classes)),
            accuracy=float(accuracy),
            kappa=float((accuracy - by_chance) / (1 - by_chance)) if by_chance < 1 else 1.0,
            dice=float((2 * hits[present] / (labelled + predicted)[present]).mean()),
        )

    def _require_classes(self, ids: NDArray[Any], what: str, remedy: str) -> None:
        least, most = int(ids.min()), int(ids.max())
        if least < 0 or most >= self.num_classes:
            stranger = least if least < 0 else most
            raise UserError(f"{what} class {stranger}, but there are classes 0 to {self.num_classes - 1}: {remedy}")
