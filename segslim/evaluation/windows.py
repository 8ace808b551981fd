"""An image larger than the network's input, at several scales, mirrored: windows slide over it, and what the network
says is averaged, as PaddleSeg's `is_slide` and `aug_eval` do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.errors import UserError

Run = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Logits 1,K,H,W of an image 1,C,H,W."""


@dataclass(frozen=True)
class Augmented:
    """How an image is predicted.

    crop_size: (width, height) of the windows, None for the whole image; stride: (width, height) from one to the next,
    by default side by side; scales: of the image; flips: among "horizontal" and "vertical", beside the image as it is;
    fixed: whether the network takes windows of `crop_size` alone, so that a smaller image is filled up with zeros.
    """

    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: Sequence[float] = (1.0,)
    flips: Sequence[str] = ()
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.stride is not None and self.crop_size is None:
            raise UserError(f"stride={list(self.stride)}: there are no windows; give crop_size, too")
        if self.crop_size and self.stride and any(s > c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f"stride={list(self.stride)} is more than crop_size={list(self.crop_size)}: pixels between windows"
                " would not be seen; give a smaller one"
            )

    def logits(self, run: Run, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of the logits 1,K,H,W over all scales and flips, for an image 1,C,H,W."""
        height, width = image.shape[2:]
        axes: list[tuple[int, ...]] = [()]  # those that are mirrored
        for side, axis in (("horizontal", 3), ("vertical", 2)):
            if side in self.flips:
                axes += [(*mirrored, axis) for mirrored in axes]
        total: Any = 0.0
        for scale in self.scales:
            scaled = resize_bilinear(image, *(max(int(side * scale + 0.5), 1) for side in (height, width)))
            for mirrored in axes:
                logits = np.flip(self._whole(run, np.ascontiguousarray(np.flip(scaled, mirrored))), mirrored)
                total = total + resize_bilinear(logits, height, width)
        return np.asarray(total / (len(self.scales) * len(axes)), np.float32)

    def _whole(self, run: Run, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits at the size of the image: of one pass, or the mean of those of all windows over a pixel."""
        height, width = image.shape[2:]
        if self.crop_size is None:
            return resize_bilinear(run(image), height, width)

        def read(top: int, left: int, bottom: int, right: int) -> NDArray[np.float32]:
            return image[:, :, top:bottom, left:right]

        return np.concatenate([logits for _, logits in self.bands(run, read, height, width)], axis=2)

    def bands(
        self, run: Run, read: Callable[[int, int, int, int], NDArray[np.float32]], height: int, width: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """From top to bottom, a row of windows after the other: (top, logits 1,K,rows,width) of the rows that no later
        window covers. In memory are no more than one row of windows.

        Args:
            run: see Run.
            read: the part of an image that (top, left, bottom, right) bound, 1,C,h,w.
            height, width: of the image.
        """
        assert self.crop_size is not None
        rows: dict[int, list[tuple[int, int, int, int]]] = {}
        for place in windows(height, width, self.crop_size, self.stride or self.crop_size):
            rows.setdefault(place[0], []).append(place)
        total: Any = None
        for top, next_top in pairwise([*rows, height]):
            for _, left, bottom, right in rows[top]:
                window = read(top, left, bottom, right)
                below, beside = self.crop_size[1] - window.shape[2], self.crop_size[0] - window.shape[3]
                if self.fixed and (below or beside):
                    window = np.pad(window, ((0, 0), (0, 0), (0, below), (0, beside)))
                logits = resize_bilinear(run(np.ascontiguousarray(window)), *window.shape[2:])
                if total is None:
                    total = np.zeros((1, logits.shape[1], bottom - top, width), np.float32)
                    count = np.zeros((bottom - top, width), np.float32)
                total[..., left:right] += logits[:, :, : bottom - top, : right - left]
                count[:, left:right] += 1
            done = next_top - top
            yield top, total[:, :, :done] / count[:done]
            for sums in (total[0], count[None]):  # what the next row covers, too, moves up
                kept = sums.shape[1] - done
                sums[:, :kept] = sums[:, done:]
                sums[:, kept:] = 0


def windows(
    height: int, width: int, crop_size: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of every window, row by row; the last ones end where the image does."""

    def starts(size: int, crop: int, step: int) -> list[int]:
        count = 1 if size <= crop else -(-(size - crop) // step) + 1
        return [max(min(at * step + crop, size) - crop, 0) for at in range(count)]

    rows, columns = starts(height, crop_size[1], stride[1]), starts(width, crop_size[0], stride[0])
    corners = [(top, left) for top in rows for left in columns]
    return [(top, left, min(top + crop_size[1], height), min(left + crop_size[0], width)) for top, left in corners]


def resize_bilinear(maps: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Maps 1,K,H,W at another size, by half-pixel centres, as Paddle's interpolate without align_corners."""
    if maps.shape[2:] == (height, width):
        return maps
    import cv2

    channels = [cv2.resize(each.astype(np.float32), (width, height)) for each in maps[0]]  # bilinear by default
    return np.stack(channels)[None]


def logits_over(logits: NDArray[np.float32], label: NDArray[Any]) -> NDArray[np.float32]:
    """Logits 1,K,H,W at the size of a label; changes of size of an image that was padded are undone one by one."""
    steps = getattr(label, "steps", None)
    if steps is None:
        return resize_bilinear(logits, *label.shape)
    return restore_logits(resize_bilinear(logits, *label.size_of_input), steps)  # type: ignore[attr-defined]


def restore_logits(logits: NDArray[np.float32], steps: Sequence[tuple[int, int, bool]]) -> NDArray[np.float32]:
    """As `restore` of class ids (segslim.evaluation.metrics), by bilinear resizes."""
    for height, width, padded in reversed(steps):
        logits = logits[:, :, :height, :width] if padded else resize_bilinear(logits, height, width)
    return logits


class RocCurve:
    """The area under the ROC curve, one class against the others, for any number of pixels: from histograms."""

    BINS = 1 << 16

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, 2, self.BINS), np.int64)  # class, whether it is the label's, probability

    def update(self, logits: NDArray[np.float32], label: NDArray[Any], ignore_index: int) -> None:
        """Adds an image: logits 1,K,H,W and its label H,W."""
        counted = np.asarray(label) != ignore_index
        scores = logits[0][:, counted].astype(np.float64)
        scores = np.exp(scores - scores.max(0, keepdims=True))
        bins = np.minimum(scores / scores.sum(0, keepdims=True) * self.BINS, self.BINS - 1).astype(np.int64)
        for index, place in enumerate(bins):
            for own in (False, True):
                self.counts[index, int(own)] += np.bincount(
                    place[(np.asarray(label)[counted] == index) == own], minlength=self.BINS
                )

    def area(self) -> float | None:
        """Of class 1 where there are two, else the mean over classes with pixels of both kinds; None without any."""
        areas = []
        for others, own in self.counts[1:] if len(self.counts) == 2 else self.counts:
            pairs = float(own.sum()) * float(others.sum())
            if pairs:
                areas.append(float((own * (np.cumsum(others) - others / 2)).sum() / pairs))
        return float(np.mean(areas)) if areas else None
