"""Renders a photograph of the back of the eye, with what a network sees in real ones and what misleads a threshold.

Coordinates are in radii of the picture's shorter half side, with the origin at the middle of the picture, so that a
picture looks the same at every size. Until the last step a picture is planar (3,H,W) RGB in 0..1: numpy's broadcasting
is several times faster over planes than over pixels.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segslim.data.layouts import FileList
from segslim.data.source import SPLITS, Pair, Progress
from segslim.errors import UserError

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]

VESSEL_STEP = 0.055  # between points of a vessel
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Canvas:
    """The coordinates of the pixels (H,W), and the side of one."""

    x: Array
    y: Array
    pixel: float

    @staticmethod
    def from_size(width: int, height: int) -> "Canvas":
        half = min(width, height) / 2
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / half
        y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / half
        xs, ys = np.meshgrid(x, y)
        return Canvas(xs, ys, 1 / half)

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(x, y) in pixels of (x, y) in this module's coordinates."""
        height, width = self.shape
        return points / self.pixel + (width / 2, height / 2)


@dataclass(frozen=True)
class Ellipse:
    """A region bounded by an ellipse; `level` is 1 on its border, 0 at its middle."""

    x: float
    y: float
    a: float
    b: float
    angle: float

    def level(self, canvas: Canvas) -> Array:
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = canvas.x - np.float32(self.x), canvas.y - np.float32(self.y)
        u, v = (cos * dx + sin * dy) / np.float32(self.a), (cos * dy - sin * dx) / np.float32(self.b)
        return np.sqrt(u * u + v * v)


def render_fundus(seed: Sequence[int], width: int, height: int) -> tuple[Picture, Picture]:
    """One photograph (H,W,3 RGB) and its label (H,W: 1 on the optic disc, 0 elsewhere), from the seed alone."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.from_size(width, height)
    side = rng.choice((-1, 1))  # of the disc: -1 left, 1 right
    radius, stretch = rng.uniform(0.215, 0.272), rng.uniform(0.9, 1.12)
    disc = Ellipse(
        x=side * rng.uniform(0.3, 0.6),
        y=rng.uniform(-0.2, 0.2),
        a=radius / stretch,
        b=radius * stretch,
        angle=rng.uniform(-0.4, 0.4),
    )
    colour = np.array([rng.uniform(0.88, 1.0), rng.uniform(0.6, 0.74), rng.uniform(0.3, 0.5)], np.float32)
    image = _retina(rng, canvas, side, disc)
    # Lesions, scars and stray light have the disc's colours, so that no threshold on colour finds it.
    _add_lesions(rng, canvas, image, colour)
    _add_scars(rng, canvas, image, disc, colour)
    _add_disc(rng, canvas, image, disc, colour)
    _add_vessels(rng, canvas, image, disc, side)
    image *= _illumination(rng, canvas)
    _add_flare(rng, canvas, image, disc, colour)
    _mask_field(rng, canvas, image)
    label = (disc.level(canvas) < 1).astype(np.uint8)
    return _develop(rng, canvas, image), label


def write_png(path: Path, image: Picture) -> None:
    """Writes a grey or RGB picture. Raises `OSError` if the file cannot be written."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def _noise(rng: np.random.Generator, canvas: Canvas, cells: int) -> Array:
    """Smooth noise of unit deviation, with about `cells` bumps along the shorter side."""
    height, width = canvas.shape
    scale = cells / min(height, width)
    grid = rng.standard_normal((round(height * scale) + 3, round(width * scale) + 3), np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _blend(image: Array, colour: Array, alpha: Array) -> None:
    image += alpha * (colour[:, None, None] - image)


def _smooth_inside(level: Array, width: float) -> Array:
    """1 inside, 0 outside, falling smoothly across `level` = 1 within the width."""
    t = np.clip((1 - level) / np.float32(width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def _retina(rng: np.random.Generator, canvas: Canvas, side: int, disc: Ellipse) -> Array:
    """The background (3,H,W): mottled, and darker at the macula."""
    base = np.array([rng.uniform(0.55, 0.8), rng.uniform(0.2, 0.32), rng.uniform(0.06, 0.15)], np.float32)
    mottle = 1 + 0.07 * _noise(rng, canvas, 4) + 0.05 * _noise(rng, canvas, 14) + 0.03 * _noise(rng, canvas, 40)
    image = base[:, None, None] * mottle
    macula = Ellipse(disc.x - side * rng.uniform(0.7, 0.85), disc.y + rng.uniform(0.0, 0.12), 0.28, 0.26, 0.0)
    image *= 1 - np.float32(rng.uniform(0.25, 0.45)) * np.exp(-(macula.level(canvas) ** 2))
    return image


def _add_disc(rng: np.random.Generator, canvas: Canvas, image: Array, disc: Ellipse, colour: Array) -> None:
    level = disc.level(canvas)
    _blend(image, colour, np.float32(rng.uniform(0.78, 0.95)) * _smooth_inside(level, rng.uniform(0.06, 0.16)))
    size = rng.uniform(0.35, 0.6)
    shift = (1 - size) * 0.5
    x, y = (disc.x + disc.a * rng.uniform(-shift, shift), disc.y + disc.b * rng.uniform(-shift, shift))
    cup = Ellipse(x, y, disc.a * size, disc.b * size, disc.angle)
    cup_colour = np.clip(colour * np.array([1.05, 1.2, 1.4], np.float32), 0, 1)
    _blend(image, cup_colour, np.float32(rng.uniform(0.4, 0.8)) * _smooth_inside(cup.level(canvas), 0.4))


def _add_lesions(rng: np.random.Generator, canvas: Canvas, image: Array, colour: Array) -> None:
    """Hard exudates: clusters of small bright spots; and dark bleedings."""
    height, width = canvas.shape
    half = 1 / canvas.pixel
    for bright in (True, False):
        mask = np.zeros(canvas.shape, np.uint8)
        for _ in range(rng.integers(1, 4)):
            spots = rng.uniform(-0.7, 0.7, 2) + rng.normal(0, 0.1, (rng.integers(8, 24), 2))
            radii = rng.uniform(0.01, 0.032 if bright else 0.024, len(spots))
            points = ((spots * half + (width / 2, height / 2)) * 16).astype(int)
            for (x, y), radius in zip(points.tolist(), (radii * half * 16).astype(int).tolist(), strict=True):
                cv2.circle(mask, (x, y), max(radius, 14), 255, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
        alpha = mask.astype(np.float32) * np.float32((0.8 if bright else 0.6) / 255)
        _blend(image, colour if bright else np.array([0.3, 0.05, 0.03], np.float32), alpha)


def _add_scars(rng: np.random.Generator, canvas: Canvas, image: Array, disc: Ellipse, colour: Array) -> None:
    """Pale patches of the disc's colours with a ragged outline, away from the disc."""
    for _ in range(rng.integers(1, 3)):
        x, y = _away_from(rng, disc)
        patch = Ellipse(x, y, rng.uniform(0.09, 0.19), rng.uniform(0.09, 0.19), rng.uniform(0, np.pi))
        noise = _noise(rng, canvas, 12)
        inside = _smooth_inside(patch.level(canvas) + np.float32(0.25) * noise, rng.uniform(0.25, 0.5))
        texture = np.float32(rng.uniform(0.65, 0.92)) + np.float32(0.08) * noise
        _blend(image, colour * np.float32(rng.uniform(0.9, 1.1)), np.clip(texture, 0, 1) * inside)


def _away_from(rng: np.random.Generator, disc: Ellipse) -> tuple[float, float]:
    """A point in the field that is more than 2.2 disc radii from the disc's middle."""
    while True:
        x, y = rng.uniform(-0.75, 0.75, 2)
        if np.hypot(x - disc.x, y - disc.y) > 2.2 * max(disc.a, disc.b):
            return float(x), float(y)


def _illumination(rng: np.random.Generator, canvas: Canvas) -> Array:
    """Exposure, fall-off towards the rim, and a slope across the field."""
    direction, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.3)
    falloff = np.float32(rng.uniform(0.2, 0.45))
    x, y = (canvas.x - np.float32(rng.uniform(-0.2, 0.2)), canvas.y - np.float32(rng.uniform(-0.2, 0.2)))
    tilt = 1 + np.float32(slope * np.cos(direction)) * canvas.x + np.float32(slope * np.sin(direction)) * canvas.y
    return np.float32(rng.uniform(0.7, 1.1)) * tilt * (1 - falloff * (x * x + y * y))


def _add_flare(rng: np.random.Generator, canvas: Canvas, image: Array, disc: Ellipse, colour: Array) -> None:
    """A crescent of stray light at the rim, mostly opposite the disc, and a soft reflection of the flash."""
    angle = np.arctan2(-disc.y, -disc.x) + rng.uniform(-1.6, 1.6)
    along = np.float32(np.cos(angle)) * canvas.x + np.float32(np.sin(angle)) * canvas.y
    reach = np.hypot(canvas.x, canvas.y) + np.float32(0.35) * along
    depth = np.clip((reach - np.float32(rng.uniform(1.1, 1.2))) / np.float32(rng.uniform(0.08, 0.16)), 0, 1)
    _blend(image, colour * np.float32(rng.uniform(0.85, 1.05)), np.float32(rng.uniform(0.6, 1.0)) * depth)
    x, y = _away_from(rng, disc)
    reflection = Ellipse(x, y, rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.2), 0.0)
    _blend(image, colour, np.float32(rng.uniform(0.2, 0.6)) * np.exp(-(reflection.level(canvas) ** 2)))


def _mask_field(rng: np.random.Generator, canvas: Canvas, image: Array) -> None:
    """The round aperture of the camera, sometimes cut off above and below."""
    radius = rng.uniform(0.94, 1.05)
    cut = rng.uniform(0.85, 1.1)
    level = np.maximum(np.hypot(canvas.x, canvas.y) / radius, np.abs(canvas.y) / cut)
    image *= _smooth_inside(level, 3 * canvas.pixel)


def _develop(rng: np.random.Generator, canvas: Canvas, image: Array) -> Picture:
    """White balance, focus, gamma and the sensor's noise, to 8 bits (H,W,3)."""
    image *= rng.uniform(0.92, 1.08, (3, 1, 1)).astype(np.float32)
    photograph = cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), rng.uniform(0.004, 0.009) / canvas.pixel)
    photograph = cv2.pow(np.clip(photograph, 0, 1), rng.uniform(0.8, 1.15))
    photograph += np.float32(rng.uniform(0.006, 0.018)) * rng.standard_normal(photograph.shape, np.float32)
    return (np.clip(photograph, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _add_vessels(rng: np.random.Generator, canvas: Canvas, image: Array, disc: Ellipse, side: int) -> None:
    """Darkens the image along blood vessels: they leave the disc, bend around the macula, branch and grow thin."""
    mask = np.zeros(canvas.shape, np.uint8)
    # An artery and a vein to each quadrant: arcades on the side of the macula, straighter ones on the other.
    vertical = np.repeat([-1, 1, -1, 1], 2)
    horizontal = side * np.repeat([-1, -1, 1, 1], 2)
    arcade = horizontal == -side
    steepness = np.where(arcade, rng.uniform(0.9, 1.4, 8), rng.uniform(0.5, 1.2, 8))
    start = np.array((disc.x, disc.y)) + rng.normal(0, 0.15 * disc.a, (8, 2))
    heading = np.arctan2(vertical * np.sin(steepness), horizontal * np.cos(steepness))
    turn = -vertical * horizontal * np.where(arcade, rng.uniform(0.9, 1.7, 8), rng.uniform(-0.2, 0.5, 8))
    thickness = rng.uniform(0.014, 0.026, 8)
    for steps, branches in ((26, 3), (12, 2), (7, 0)):
        # Curves turn evenly, with some tremor: points (curves, steps + 1, 2), headings (curves, steps).
        tremor = np.cumsum(rng.normal(0, 0.09, (len(start), steps)), 1)
        headings = heading[:, None] + turn[:, None] * np.linspace(0, 1, steps) + tremor
        strides = VESSEL_STEP * np.stack([np.cos(headings), np.sin(headings)], 2)
        points = np.cumsum(np.concatenate([start[:, None], strides], 1), 1)
        curves = canvas.to_pixels(points)
        _draw_curves(mask, curves, thickness / canvas.pixel)
        _draw_curves(mask, curves[:, : steps // 2], 1.35 * thickness / canvas.pixel)
        if branches:
            # Thinner branches leave each curve at an angle and bend back to its direction.
            curve = np.repeat(np.arange(len(headings)), branches)
            at = rng.integers(steps // 5, steps, len(curve))
            away = rng.choice((-1, 1), len(curve)) * rng.uniform(0.4, 0.9, len(curve))
            start, heading, turn = points[curve, at], headings[curve, at] + away, -0.5 * away
            thickness = 0.65 * thickness[curve]
    darkening = mask.astype(np.float32) * np.float32(rng.uniform(0.7, 0.95) / 255)
    image *= 1 - darkening * np.array([0.4, 0.7, 0.65], np.float32)[:, None, None]


def _draw_curves(mask: Picture, curves: NDArray[np.float64], thickness: NDArray[np.float64]) -> None:
    """Draws curves (curves, points, 2) in pixels; thinner than one pixel they are drawn paler instead."""
    fixed_point = (curves * (1 << SUBPIXEL_BITS)).astype(np.int32)
    widths = np.maximum(np.rint(thickness), 1).astype(int)
    for width in np.unique(widths):
        same = widths == width
        grey = 255 * np.clip(thickness[same].mean(), 0.3, 1.0)
        cv2.polylines(mask, list(fixed_point[same]), False, grey, int(width), cv2.LINE_AA, SUBPIXEL_BITS)


RENDERER_VERSION = 1
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class SyntheticFundus:
    """Fundus photographs with two classes: 0 background, 1 optic disc.

    Image i of a split depends only on (seed, split, i, size): `train_images` may grow without changing any of the
    images that are there. `size` is (width, height) in pixels.
    """

    seed: int = 0
    size: Sequence[int] = (160, 160)
    train_images: int = 160
    val_images: int = 40

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < SMALLEST_SIDE:
            raise UserError(
                f"dataset.size={list(self.size)} cannot be rendered: give [width, height] of at least {SMALLEST_SIDE}"
            )
        for key, least in (("seed", 0), ("train_images", 1), ("val_images", 1)):
            if getattr(self, key) < least:
                raise UserError(f"dataset.source.{key}={getattr(self, key)} is too small: give at least {least}")

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the renderer's version and of every parameter.

        Not of the pixels: releases of OpenCV and numpy round some of them (about one in a million) by one level.
        """
        return hashlib.sha256(json.dumps(["fundus", RENDERER_VERSION, asdict(self)]).encode()).hexdigest()

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Renders images and labels as PNG, with PaddleSeg's lists `train_list.txt` and `val_list.txt` beside them."""
        counts = dict(zip(SPLITS, (self.train_images, self.val_images), strict=True))
        width, height = self.size
        done = 0
        for split, count in counts.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            names = [f"{split}/{index:05d}.png" for index in range(count)]
            for index, name in enumerate(names):
                image, label = render_fundus((self.seed, SPLITS.index(split), index), width, height)
                write_png(folder / "images" / name, image)
                write_png(folder / "labels" / name, label)
                done += 1
                if progress is not None:
                    progress(done, sum(counts.values()))
            lines = [f"images/{name} labels/{name}\n" for name in names]
            (folder / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs that `prepare` wrote to the folder."""
        return FileList(folder, "train_list.txt", "val_list.txt").pairs(folder, split, strict)
