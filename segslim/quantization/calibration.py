"""Ranges of activations: the float ONNX graph runs on images, and an observer picks each tensor's range.

The observers are PaddleSlim's, by their names: from what a tensor held to the range that int8 stands for. What is
beyond is clipped, and a smaller range makes the steps finer for all others. Each observer works on one histogram over
all images, where PaddleSlim's take one batch at a time, and on values with their sign, where PaddleSlim's know absolute
ones: `mse` sets both ends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, ValueInfoProto

from segslim.errors import UserError
from segslim.onnx_tools import session_of
from segslim.quantization.graph import folded_copy
from segslim.quantization.placement import place_integers
from segslim.quantization.spec import Range

FEWEST_IMAGES = 4
BINS = 2048
SHARES = np.arange(0.3, 1.001, 0.02)  # of an end: the ranges that mse and emd try, as PaddleSlim's do


@dataclass(frozen=True)
class TensorStatistics:
    """What a tensor held over all calibration images.

    `low` is its least value and `high` its largest, 0 among them, `image_maxima` the largest absolute value of each
    image, `histogram` how many values fell into each of BINS bins between `low` and `high` (None where the observer
    needs none).
    """

    low: float
    high: float
    image_maxima: tuple[float, ...]
    histogram: np.ndarray | None = None

    @property
    def maximum(self) -> float:
        return max(self.image_maxima)

    def within(self, top: float) -> Range:
        """What it held, as far as that is no farther from 0 than `top`."""
        return max(self.low, -top), min(self.high, top)

    @property
    def counts(self) -> np.ndarray:
        if self.histogram is None:
            raise ValueError("these statistics were collected without histograms")
        return self.histogram

    @property
    def values(self) -> np.ndarray:
        """The middle of each bin."""
        return self.low + (np.arange(BINS) + 0.5) * ((self.high - self.low) / BINS)

    def absolute(self) -> np.ndarray:
        """How many absolute values fell into each of BINS bins between 0 and the largest."""
        bins = np.minimum((np.abs(self.values) * (BINS / self.maximum)).astype(np.int64), BINS - 1)
        return np.bincount(bins, self.counts, BINS)


def check_image_count(images: int) -> None:
    """Raises UserError where there are fewer than FEWEST_IMAGES: their extremes say little about other images."""
    if images < FEWEST_IMAGES:
        raise UserError(
            f"dataset: {images} training images are too few to calibrate on; give at least {FEWEST_IMAGES},"
            " or a strategy without quantization"
        )


def collect_statistics(
    model: ModelProto,
    images: Sequence[np.ndarray],
    threads: int,
    histogram: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, TensorStatistics]:
    """Statistics of each tensor of a float ONNX graph that can be int8, by its name.

    Args:
        model: the graph, of one input; it is not changed.
        images: inputs of 1,3,H,W, float32.
        threads: of ONNX Runtime.
        histogram: also count values in bins, which takes a second pass: the largest value must be known first.
        progress: called with the runs that are done and their total number.
    """
    folded = folded_copy(model)
    tensors = list(place_integers(folded).groups)
    source = folded.graph.input[0].name
    computed = [name for name in tensors if name != source]
    del folded.graph.output[:]
    folded.graph.output.extend(ValueInfoProto(name=name) for name in computed)
    session = session_of(folded, threads)
    total = (2 if histogram else 1) * len(images)

    def arrays(runs_before: int) -> Iterator[tuple[str, np.ndarray]]:
        for done, image in enumerate(images, runs_before + 1):
            yield from zip(computed, session.run(computed, {source: image}), strict=True)
            if source in tensors:
                yield source, image
            progress(done, total)

    low: dict[str, float] = dict.fromkeys(tensors, 0.0)
    high: dict[str, float] = dict.fromkeys(tensors, 0.0)
    maxima: dict[str, list[float]] = {name: [] for name in tensors}
    for name, array in arrays(0):
        least, largest = float(array.min()), float(array.max())
        low[name], high[name] = min(low[name], least), max(high[name], largest)
        maxima[name].append(max(-least, largest))
    counts: dict[str, np.ndarray | None] = dict.fromkeys(tensors)
    if histogram:
        for name, array in arrays(len(images)):
            of_image = _binned(array, low[name], high[name])
            before = counts[name]
            counts[name] = of_image if before is None else before + of_image
    return {name: TensorStatistics(low[name], high[name], tuple(maxima[name]), counts[name]) for name in tensors}


def _binned(array: np.ndarray, low: float, high: float) -> np.ndarray:
    if low == high:
        return np.bincount([0], [array.size], BINS).astype(np.int64)
    # in place and by bincount: np.histogram takes several times as long, and this runs for every tensor of every image
    bins = array.ravel() - np.float32(low)
    bins *= np.float32(BINS / (high - low))
    return np.bincount(np.minimum(bins.astype(np.int32), BINS - 1), minlength=BINS)


def activation_ranges(statistics: Mapping[str, TensorStatistics], observer: str, percentile: float) -> dict[str, Range]:
    """The range of each tensor, by `observed_range`."""
    return {name: observed_range(observer, of_tensor, percentile) for name, of_tensor in statistics.items()}


def observed_range(observer: str, statistics: TensorStatistics, percentile: float) -> Range:
    """The range (low, high) that an observer picks, 0 and no more than what the tensor held in it.

    `percentile` is for the observer hist alone: a share in 0..1. Raises UserError for an unknown observer.
    """
    if observer not in OBSERVERS:
        raise UserError(f"compress.calibration.observer={observer}: should be one of {', '.join(OBSERVERS)}")
    if statistics.maximum == 0:
        return (0.0, 0.0)
    return OBSERVERS[observer](statistics, percentile)


def abs_max(statistics: TensorStatistics, percentile: float) -> Range:
    """All that it held: nothing is clipped."""
    return statistics.within(statistics.maximum)


def average(statistics: TensorStatistics, percentile: float) -> Range:
    """As far from 0 as the mean of the images' largest values."""
    return statistics.within(float(np.mean(statistics.image_maxima)))


def hist(statistics: TensorStatistics, percentile: float) -> Range:
    """As far from 0 as a share `percentile` of all values lies."""
    counts = statistics.absolute()
    share = np.cumsum(counts) / max(counts.sum(), 1)
    return statistics.within(float((np.searchsorted(share, percentile) + 1) * statistics.maximum / BINS))


def mse(statistics: TensorStatistics, percentile: float) -> Range:
    """The range with the least mean square error of the rounded and clipped values: one end after the other."""
    low, high = statistics.within(statistics.maximum)
    for _ in range(2):
        high = _least(high, lambda end, low=low: _square_error(statistics, (low, end)))  # type: ignore[misc]
        low = _least(low, lambda end, high=high: _square_error(statistics, (end, high)))  # type: ignore[misc]
    return low, high


def emd(statistics: TensorStatistics, percentile: float) -> Range:
    """The range that changes mean and deviation of absolute values least, PaddleSlim's measure of the earth mover's
    distance.
    """
    values, weights = statistics.values, statistics.counts / max(statistics.counts.sum(), 1)

    def moments(array: np.ndarray) -> np.ndarray:
        mean = float((weights * np.abs(array)).sum())
        return np.array([mean, np.sqrt(max(float((weights * array**2).sum()) - mean**2, 0.0))])

    exact = moments(values)
    top = _least(
        statistics.maximum, lambda top: float(np.abs(exact - moments(_rounded(values, statistics.within(top)))).sum())
    )
    return statistics.within(top)


def kl(statistics: TensorStatistics, percentile: float) -> Range:
    """The range with the least Kullback-Leibler divergence of the rounded distribution (Migacz, 2017, TensorRT)."""
    counts = statistics.absolute()
    counts[0] = 0  # zeros of a rectifier are exact in any scale, and would outweigh everything
    low, high = statistics.within(statistics.maximum)
    if not counts.any():
        return low, high
    levels = max(round(255 * max(-low, high) / (high - low)), 1) + 1  # between 0 and the end that is farther
    kept = np.arange(levels, BINS + 1, 16)
    divergences = [_divergence(counts, int(bins), levels) for bins in kept]
    return statistics.within(float(kept[int(np.argmin(divergences))] * statistics.maximum / BINS))


OBSERVERS: dict[str, Callable[[TensorStatistics, float], Range]] = {
    "abs_max": abs_max,
    "avg": average,
    "hist": hist,
    "mse": mse,
    "emd": emd,
    "kl": kl,
}


def relative_noise(statistics: TensorStatistics, within: Range) -> float:
    """Mean square error of a tensor in uint8 within a range, divided by its mean square."""
    power = float((statistics.counts * statistics.values**2).sum())
    if power == 0 or within[0] == within[1]:
        return 0.0
    return _square_error(statistics, within) / power


def _square_error(statistics: TensorStatistics, within: Range) -> float:
    values = statistics.values
    return float((statistics.counts * (values - _rounded(values, within)) ** 2).sum())


def _rounded(values: np.ndarray, within: Range) -> np.ndarray:
    """By the steps of uint8, of which one is 0."""
    step = (within[1] - within[0]) / 255
    below = round(-within[0] / step)
    return np.asarray(np.clip(np.rint(values / step), -below, 255 - below) * step)


def _least(end: float, loss: Callable[[float], float]) -> float:
    """The share of an end with the least loss."""
    ends = end * SHARES
    return float(ends[int(np.argmin([loss(float(one)) for one in ends]))]) if end else end


def _divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """KL divergence of the first `bins` bins, the rest clipped into the last, from their merging into `levels`."""
    clipped = counts[:bins].copy()
    level = np.arange(bins) * levels // bins  # that each bin is merged into
    filled = clipped > 0
    # a level's values are spread over those of its bins that held any, before the outliers are added (Migacz)
    spread = np.bincount(level, clipped, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    merged = np.where(filled, spread[level], 0.0)
    clipped[-1] += counts[bins:].sum()
    if clipped.sum() == 0 or merged.sum() == 0:
        return np.inf
    p, q = clipped / clipped.sum(), merged / merged.sum()
    present = p > 0
    return float((p[present] * np.log(p[present] / np.maximum(q[present], 1e-12))).sum())
