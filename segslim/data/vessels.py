"""The retina's blood vessels: branching curves that leave the optic disc, bend around the macula and grow thin."""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Curve = tuple[NDArray[np.float64], float]

STEPS = 26
STEP = 0.055


def draw_vessels(
    rng: np.random.Generator, image: Array, origin: tuple[float, float], disc_radius: float, side: int, pixel: float
) -> None:
    """Darkens the image (H,W,3) along vessels from `origin`; `side` is the disc's side (-1 left, 1 right).

    Lengths are in radii of the field, of which a pixel is `pixel`.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for points, thickness in _tree(rng, np.array(origin), disc_radius, side):
        _draw(mask, points / pixel + (width / 2, height / 2), thickness / pixel)
    darkening = np.float32(rng.uniform(0.75, 0.95)) * mask.astype(np.float32) / 255
    image *= 1 - darkening[..., None] * np.array([0.4, 0.7, 0.65], np.float32)


def _tree(rng: np.random.Generator, origin: NDArray[np.float64], disc_radius: float, side: int) -> list[Curve]:
    """Trunks in all four quadrants, each an artery and a vein, with two orders of branches."""
    curves: list[Curve] = []
    for vertical in (-1, 1):
        for horizontal, bend in ((-side, 1.0), (side, 0.25)):
            for _ in range(2):
                angle = np.arctan2(vertical * rng.uniform(0.8, 1.3), horizontal * rng.uniform(0.25, 0.7))
                turn = -vertical * horizontal * bend * rng.uniform(0.6, 1.1)
                start = origin + rng.normal(0, 0.15 * disc_radius, 2)
                _grow(rng, curves, start, angle, turn, rng.uniform(0.022, 0.036), order=2)
    return curves


def _grow(
    rng: np.random.Generator,
    curves: list[Curve],
    start: NDArray[np.float64],
    angle: float,
    turn: float,
    thickness: float,
    order: int,
) -> None:
    """Appends a curve that starts at an angle and turns by about `turn` radians, and then its branches."""
    steps = STEPS if order == 2 else STEPS // 2
    headings = angle + turn * np.linspace(0, 1, steps) + np.cumsum(rng.normal(0, 0.09, steps))
    points = start + STEP * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1), 0)
    curves.append((np.vstack([start, points]), thickness))
    if order == 0:
        return
    for at in rng.integers(steps // 5, steps, 4 if order == 2 else 2):
        away = rng.choice((-1, 1)) * rng.uniform(0.4, 0.9)
        _grow(rng, curves, points[at], headings[at] + away, -away * 0.5, thickness * 0.6, order - 1)


def _draw(mask: NDArray[np.uint8], points: NDArray[np.float64], thickness: float) -> None:
    """Draws a curve that is thin enough to need grey levels: below one pixel a vessel gets paler, not thinner."""
    fixed = np.clip(points * 16, -(1 << 20), 1 << 20).astype(np.int32).reshape(-1, 1, 2)
    grey = int(255 * min(1.0, max(0.35, thickness)))
    cv2.polylines(mask, [fixed], False, grey, max(1, round(thickness)), cv2.LINE_AA, 4)
