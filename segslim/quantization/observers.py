"""From what was seen of a tensor to the largest value that int8 stands for: PaddleSlim's observers, by their names.

What lies above is clipped: a smaller range makes the steps finer for all the rest. Each works on a histogram of
absolute values, over all images at once, where PaddleSlim's take one batch at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segslim.errors import UserError

BINS = 2048
CANDIDATES = np.arange(0.3, 1.001, 0.02)  # shares of the largest value, as PaddleSlim tries them


@dataclass(frozen=True)
class Seen:
    """A tensor over all calibration images: its least value, the largest absolute value of each image, and how many
    absolute values fell into each of BINS bins between 0 and the largest (None where the observer needs none)."""

    least: float
    largest: tuple[float, ...]
    counts: np.ndarray | None = None

    @property
    def top(self) -> float:
        return max(self.largest)

    @property
    def levels(self) -> int:
        """Steps between 0 and the end of the range: the whole byte for a tensor that is never negative."""
        return 255 if self.least >= 0 else 127

    def centres(self) -> np.ndarray:
        return (np.arange(BINS) + 0.5) * (self.top / BINS)


def abs_max(seen: Seen, percentile: float) -> float:
    """The largest value of all: nothing is clipped."""
    return seen.top


def average(seen: Seen, percentile: float) -> float:
    """The mean of the images' largest values."""
    return float(np.mean(seen.largest))


def hist(seen: Seen, percentile: float) -> float:
    """The value below which a share `percentile` of all values lies."""
    share = np.cumsum(_counts(seen)) / max(_counts(seen).sum(), 1)
    return float((np.searchsorted(share, percentile) + 1) * seen.top / BINS)


def mse(seen: Seen, percentile: float) -> float:
    """The least mean square error of the rounded and clipped values."""
    values, counts = seen.centres(), _counts(seen)
    return _least(seen, lambda top: float((counts * (values - _rounded(values, top, seen.levels)) ** 2).sum()))


def emd(seen: Seen, percentile: float) -> float:
    """The least change of the values' mean and deviation, as PaddleSlim measures the earth mover's distance."""
    values, weights = seen.centres(), _counts(seen) / max(_counts(seen).sum(), 1)

    def moments(array: np.ndarray) -> np.ndarray:
        mean = float((weights * array).sum())
        return np.array([mean, np.sqrt(max(float((weights * array**2).sum()) - mean**2, 0.0))])

    before = moments(values)
    return _least(seen, lambda top: float(np.abs(before - moments(_rounded(values, top, seen.levels))).sum()))


def kl(seen: Seen, percentile: float) -> float:
    """The least Kullback-Leibler divergence of the clipped and rounded distribution (Migacz, 2017, TensorRT)."""
    counts = _counts(seen).astype(np.float64)
    counts[0] = 0  # zeros of a rectifier are exact in any scale, and would outweigh everything
    kept = np.arange(seen.levels + 1, BINS + 1, 16)
    divergences = [_divergence(counts, int(bins), seen.levels + 1) for bins in kept]
    return float(kept[int(np.argmin(divergences))] * seen.top / BINS) if counts.any() else seen.top


OBSERVERS: dict[str, Callable[[Seen, float], float]] = {
    "abs_max": abs_max,
    "avg": average,
    "hist": hist,
    "mse": mse,
    "emd": emd,
    "kl": kl,
}


def observe(name: str, seen: Seen, percentile: float) -> tuple[float, float]:
    """The range (low, high) of a tensor; low is 0 where it is never negative. Raises UserError for an unknown name."""
    if name not in OBSERVERS:
        raise UserError(f"compress.calibration.observer={name}: should be one of {', '.join(OBSERVERS)}")
    if seen.top == 0:
        return (0.0, 0.0)
    high = OBSERVERS[name](seen, percentile)
    return (0.0 if seen.least >= 0 else -high, high)


def noise(seen: Seen, high: float) -> float:
    """Mean square error of a tensor in int8, by its mean square: the inverse of the signal-to-noise ratio."""
    values, counts = seen.centres(), _counts(seen)
    power = float((counts * values**2).sum())
    if power == 0 or high == 0:
        return 0.0
    return float((counts * (values - _rounded(values, high, seen.levels)) ** 2).sum()) / power


def _counts(seen: Seen) -> np.ndarray:
    assert seen.counts is not None
    return seen.counts


def _rounded(values: np.ndarray, top: float, levels: int) -> np.ndarray:
    step = top / levels
    return np.asarray(np.clip(np.rint(values / step), 0, levels) * step)


def _least(seen: Seen, loss: Callable[[float], float]) -> float:
    tops = seen.top * CANDIDATES
    return float(tops[int(np.argmin([loss(float(top)) for top in tops]))])


def _divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """KL divergence of the first `bins` bins, the rest clipped into the last, from their merging into `levels`."""
    clipped = counts[:bins].copy()
    merged = np.zeros(bins)
    owner = np.arange(bins) * levels // bins
    filled = clipped > 0
    totals = np.bincount(owner, clipped, levels)
    occupied = np.bincount(owner, filled, levels)
    merged[filled] = (totals / np.maximum(occupied, 1))[owner][filled]
    clipped[-1] += counts[bins:].sum()
    if clipped.sum() == 0 or merged.sum() == 0:
        return np.inf
    p, q = clipped / clipped.sum(), merged / merged.sum()
    present = p > 0
    return float((p[present] * np.log(p[present] / np.maximum(q[present], 1e-12))).sum())
