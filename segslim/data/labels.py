"""Class ids of a label file: the one place where its numbers are taken for classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segslim.data.source import Pair

BELOW = 255  # what a number becomes that the offset takes below 0: the ignored one, as in every data set that has it


def read_label(pair: Pair) -> NDArray[Any]:
    """The label's class ids H,W, or H,W,C for a file of several channels; a palette image gives its numbers.

    Raises OSError as PIL does.
    """
    with Image.open(pair.label) as opened:
        return as_classes(np.array(opened), pair)


def as_classes(label: NDArray[Any], pair: Pair) -> NDArray[Any]:
    """The numbers of a decoded label file as class ids."""
    if label.dtype == bool:
        label = label.astype(np.uint8)
    if pair.label_offset == 0:
        return label
    shifted = label.astype(np.int64) + pair.label_offset
    shifted[shifted < 0] = BELOW
    return shifted if shifted.max(initial=0) > BELOW else shifted.astype(np.uint8)
