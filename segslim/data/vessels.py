"""The retina's blood vessels: branching curves that leave the optic disc, bend around the macula and grow thin."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 0.055
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Shoots:
    """Where curves of one order start, their first heading, by how much they turn (radians) and their thickness."""

    start: Array
    heading: Array
    turn: Array
    thickness: Array


def draw_vessels(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    origin: tuple[float, float],
    disc_radius: float,
    side: int,
    pixel: float,
) -> None:
    """Darkens the image (3,H,W) along vessels from `origin`; `side` is the disc's side (-1 left, 1 right).

    Lengths are in radii of the field, of which a pixel is `pixel`.
    """
    height, width = image.shape[1:]
    mask = np.zeros((height, width), np.uint8)
    shoots = _trunks(rng, np.array(origin), disc_radius, side)
    for steps, branches in ((26, 3), (12, 2), (7, 0)):
        points, headings = _grow(rng, shoots, steps)
        curves = points / pixel + (width / 2, height / 2)
        _draw(mask, curves, shoots.thickness / pixel)
        _draw(mask, curves[:, : steps // 2], 1.35 * shoots.thickness / pixel)
        if branches:
            shoots = _branches(rng, shoots, points, headings, branches)
    darkening = mask.astype(np.float32) * np.float32(rng.uniform(0.7, 0.95) / 255)
    image *= 1 - darkening * np.array([0.4, 0.7, 0.65], np.float32)[:, None, None]


def _trunks(rng: np.random.Generator, origin: Array, disc_radius: float, side: int) -> Shoots:
    """An artery and a vein to each quadrant: arcades on the side of the macula, straighter ones on the other."""
    vertical = np.repeat([-1, 1, -1, 1], 2)
    horizontal = side * np.repeat([-1, -1, 1, 1], 2)
    arcade = horizontal == -side
    steepness = np.where(arcade, rng.uniform(0.9, 1.4, 8), rng.uniform(0.5, 1.2, 8))
    return Shoots(
        start=origin + rng.normal(0, 0.15 * disc_radius, (8, 2)),
        heading=np.arctan2(vertical * np.sin(steepness), horizontal * np.cos(steepness)),
        turn=-vertical * horizontal * np.where(arcade, rng.uniform(0.9, 1.7, 8), rng.uniform(-0.2, 0.5, 8)),
        thickness=rng.uniform(0.014, 0.026, 8),
    )


def _grow(rng: np.random.Generator, shoots: Shoots, steps: int) -> tuple[Array, Array]:
    """Points (curves, steps + 1, 2) and headings (curves, steps) of curves that turn evenly, with some tremor."""
    tremor = np.cumsum(rng.normal(0, 0.09, (len(shoots.start), steps)), 1)
    headings = shoots.heading[:, None] + shoots.turn[:, None] * np.linspace(0, 1, steps) + tremor
    strides = STEP * np.stack([np.cos(headings), np.sin(headings)], 2)
    strides = np.concatenate([shoots.start[:, None], strides], 1)
    return np.cumsum(strides, 1), headings


def _branches(rng: np.random.Generator, shoots: Shoots, points: Array, headings: Array, count: int) -> Shoots:
    """`count` thinner shoots from each curve, which leave it at an angle and bend back to its direction."""
    steps = headings.shape[1]
    curve = np.repeat(np.arange(len(headings)), count)
    at = rng.integers(steps // 5, steps, len(curve))
    away = rng.choice((-1, 1), len(curve)) * rng.uniform(0.4, 0.9, len(curve))
    return Shoots(
        points[curve, at],
        headings[curve, at] + away,
        -0.5 * away,
        0.65 * shoots.thickness[curve],
    )


def _draw(mask: NDArray[np.uint8], curves: Array, thickness: Array) -> None:
    """Draws curves (curves, points, 2) in pixels; below one pixel of thickness they get paler instead of thinner."""
    fixed = (curves * (1 << SUBPIXEL_BITS)).astype(np.int32)
    whole = np.maximum(np.rint(thickness), 1).astype(int)
    for width in np.unique(whole):
        same = whole == width
        grey = 255 * np.clip(thickness[same].mean(), 0.3, 1.0)
        cv2.polylines(mask, list(fixed[same]), False, grey, int(width), cv2.LINE_AA, SUBPIXEL_BITS)
