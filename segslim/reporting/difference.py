"""Where two networks differ, pixel by pixel, and which of them the label agrees with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What became of a pixel between the baseline and the compressed network, in the order of the ids, with its colour.
KINDS = {
    "unchanged": (0, 0, 0),
    "lost": (242, 92, 58),
    "gained": (64, 156, 255),
    "wrong both times": (247, 201, 72),
}
LOST, GAINED, CHANGED = 1, 2, 3
BACKDROP = 0.45  # brightness of the image under the colours


def difference(
    baseline: NDArray[Any], compressed: NDArray[Any], label: NDArray[Any], ignore_index: int
) -> NDArray[np.uint8]:
    """Ids of KINDS, of shape H,W as the three arrays of class ids. Pixels without a label are unchanged."""
    kinds = np.where(baseline == compressed, 0, CHANGED).astype(np.uint8)
    kinds[(baseline == label) & (compressed != label)] = LOST
    kinds[(baseline != label) & (compressed == label)] = GAINED
    kinds[label == ignore_index] = 0
    return kinds


def errors(prediction: NDArray[Any], label: NDArray[Any], ignore_index: int) -> NDArray[np.uint8]:
    """The same ids for a network alone: what is wrong counts as lost."""
    return ((prediction != label) & (label != ignore_index)).astype(np.uint8) * np.uint8(LOST)


def draw(image: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H,W,3 RGB: the colours of `kinds` on the image H,W,3, which is made dark and grey."""
    grey = np.repeat(image.mean(axis=-1, keepdims=True) * BACKDROP, 3, axis=-1)
    colours = np.array(list(KINDS.values()))[kinds]
    return np.where(kinds[..., np.newaxis] > 0, colours, grey).astype(np.uint8)
