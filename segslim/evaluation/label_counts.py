"""A label prepared for many predictions: comparing one then costs by its own pixels, not by the label's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError
from segslim.evaluation.confusion import OF_LABELS, OF_PREDICTIONS, require_classes
from segslim.evaluation.evaluate import resize_nearest


@dataclass(frozen=True)
class LabelCounts:
    """How many pixels of a label, by class, take the class of each pixel of a prediction of `shape`.

    The entries are parallel vectors: `counts` pixels of class `classes` take that of pixel `pixels`, numbered row by
    row. Hardly a pixel has two of them, unless it lies on an edge.
    """

    shape: tuple[int, int]
    num_classes: int
    pixels: NDArray[np.intp]
    classes: NDArray[np.intp]
    counts: NDArray[np.float64]

    @classmethod
    def of(
        cls, label: NDArray[Any], shape: tuple[int, int], num_classes: int, ignore_index: int = 255
    ) -> "LabelCounts":
        """Counts the label H,W for predictions that `resize_nearest` brings to its size.

        Raises `UserError` for a class that is out of range and not ignored.
        """
        sources = resize_nearest(np.arange(shape[0] * shape[1]).reshape(shape), *label.shape)
        counted = label != ignore_index
        known = label[counted].astype(np.intp)
        if known.size:
            require_classes(known, num_classes, *OF_LABELS)
        cells = np.bincount(sources[counted] * num_classes + known, minlength=shape[0] * shape[1] * num_classes)
        found = np.flatnonzero(cells)
        return cls(shape, num_classes, found // num_classes, found % num_classes, cells[found].astype(np.float64))

    def confusion(self, prediction: NDArray[np.integer]) -> NDArray[np.int64]:
        """What `ConfusionMatrix` counts, [label, prediction], for class ids of `shape` brought to the label's size.

        Raises `UserError` for another shape, and for a class that is out of range.
        """
        if prediction.shape != self.shape:
            raise UserError(f"a prediction of shape {prediction.shape} came where {self.shape} was awaited")
        require_classes(prediction, self.num_classes, *OF_PREDICTIONS)
        cells = self.classes * self.num_classes + prediction.ravel()[self.pixels]
        counts = np.bincount(cells, self.counts, self.num_classes**2)  # sums of whole numbers: exact in float64
        return counts.astype(np.int64).reshape(self.num_classes, self.num_classes)
