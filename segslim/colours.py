"""Colours of classes: a palette where a data set has none, and class ids drawn in them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

LEVELS = 9  # of each of red, green and blue, that a palette chooses from
BACKGROUND: Colour = (64, 64, 64)
DARKEST, LIGHTEST = 0.35, 0.93  # OKLab lightness: black and white stay free for shadow, text and paper


def palette(count: int, colours: Sequence[Sequence[int]] | None = None) -> list[Colour]:
    """`colours` as [r, g, b] in 0..255, or where there are none `count` that differ as much as they can."""
    return [(int(r), int(g), int(b)) for r, g, b in colours] if colours else list(distinct_colours(count))


@lru_cache
def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Colours for up to 256 classes; the first ones stay the same for every count.

    Class 0, which mostly is the background, is dark grey. Each next is, of all in a grid, the farthest from those
    before it as people see it: by distance in OKLab (Ottosson, 2020, "A perceptual color space for image processing").
    """
    steps = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = _oklab(grid)
    admitted = (seen[:, 0] > DARKEST) & (seen[:, 0] < LIGHTEST)
    grid, seen = grid[admitted], seen[admitted]
    chosen = [BACKGROUND]
    nearest = np.full(len(grid), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(seen - _oklab(np.array(chosen[-1:])), axis=1))
        red, green, blue = grid[nearest.argmax()].tolist()
        chosen.append((red, green, blue))
    return tuple(chosen[:count])


def paint(ids: NDArray[Any], colours: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """H,W,3 RGB of class ids H,W; ids without a colour, such as the ignored ones, become black."""
    table = np.zeros((max(256, len(colours)), 3), np.uint8)
    table[: len(colours)] = colours
    return table[ids]


def blend(
    image: NDArray[np.uint8],
    ids: NDArray[Any],
    colours: Sequence[Sequence[int]],
    share: float = 0.5,
    background: int | None = None,
) -> NDArray[np.uint8]:
    """The image (H,W,3 RGB) with `share` of its classes' colours in it. Ids without a colour, and those of the
    `background`, leave it as it is.
    """
    mixed = image + share * (paint(ids, colours).astype(np.float32) - image)
    coloured = (ids < len(colours)) & (ids != (-1 if background is None else background))
    return np.where(coloured[..., np.newaxis], mixed.round(), image).astype(np.uint8)


def background_of(classes: Sequence[str] | None) -> int | None:
    """The class that is no thing of its own: by its name, or class 0 where there are two or they have no names."""
    if classes is None or len(classes) <= 2:
        return 0
    return next((at for at, name in enumerate(classes) if name.strip("_ ").lower() in ("background", "bg")), None)


def _oklab(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """N,3 lightness, green-red and blue-yellow of N,3 sRGB in 0..255."""
    encoded = rgb / 255
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
