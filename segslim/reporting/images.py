"""Pictures of a page: where two networks differ, and files as data URIs no larger than they are shown."""

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.files import open_regular

#: What became of a pixel between the baseline and the compressed network, in the order of the ids, with its colour.
KINDS = {
    "unchanged": (0, 0, 0),
    "lost": (242, 92, 58),
    "gained": (64, 156, 255),
    "wrong both times": (247, 201, 72),
}
LOST, GAINED, CHANGED = 1, 2, 3
BACKDROP = 0.45  # brightness of the image under the colours

_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def difference(
    baseline: NDArray[Any], compressed: NDArray[Any], label: NDArray[Any], ignore_index: int
) -> NDArray[np.uint8]:
    """Which pixels two networks do not agree on, and which of them is right.

    Args:
        baseline: class ids of shape H,W, as the two others.
        compressed: the other network's.
        label: the right ones.
        ignore_index: the label of pixels that are not judged: unchanged.

    Returns:
        Ids of KINDS, H,W.
    """
    kinds = np.where(baseline == compressed, 0, CHANGED).astype(np.uint8)
    kinds[(baseline == label) & (compressed != label)] = LOST
    kinds[(baseline != label) & (compressed == label)] = GAINED
    kinds[label == ignore_index] = 0
    return kinds


def errors(prediction: NDArray[Any], label: NDArray[Any], ignore_index: int) -> NDArray[np.uint8]:
    """The same ids for a network alone: what is wrong counts as lost."""
    return ((prediction != label) & (label != ignore_index)).astype(np.uint8) * np.uint8(LOST)


def draw(image: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H,W,3 RGB: the colours of `kinds` (H,W) on the image (H,W,3), which is made dark and grey."""
    grey = np.repeat(image.mean(axis=-1, keepdims=True) * BACKDROP, 3, axis=-1)
    colours = np.array(list(KINDS.values()))[kinds]
    return np.where(kinds[..., np.newaxis] > 0, colours, grey).astype(np.uint8)


def embed(file: Path) -> str:
    """The file as a data URI. Raises OSError when it cannot be read."""
    with open_regular(file) as stream:
        return _data_uri(stream.read(), _TYPES[file.suffix])


@lru_cache(maxsize=4)  # the pages of a sweep's jobs show the same samples; an artifact's file never changes
def embed_downsized(file: Path, width: int) -> str:
    """The picture, at most `width` pixels wide, as a data URI (JPEG). Raises OSError when it cannot be read."""
    from PIL import Image

    with open_regular(file) as stream, Image.open(stream) as opened:
        image = opened.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return _data_uri(content.getvalue(), "image/jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
