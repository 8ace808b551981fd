"""Ranges of activations: the float ONNX graph runs on images, and an observer picks each tensor's range.

The observers are PaddleSlim's, by their names: from what a tensor held to the largest value that int8 stands for.
Larger values are clipped, and a smaller range makes the steps finer for all others. Each observer works on one
histogram of absolute values over all images, where PaddleSlim's take one batch at a time.
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
SHARES = np.arange(0.3, 1.001, 0.02)  # of the largest value: the ranges that mse and emd try, as PaddleSlim's do


@dataclass(frozen=True)
class TensorStatistics:
    """What a tensor held over all calibration images.

    `minimum` is its least value, `image_maxima` the largest absolute value of each image, `histogram` how many absolute
    values fell into each of BINS bins between 0 and the largest of all (None where the observer needs none).
    """

    minimum: float
    image_maxima: tuple[float, ...]
    histogram: np.ndarray | None = None

    @property
    def maximum(self) -> float:
        return max(self.image_maxima)

    def low(self, high: float) -> float:
        """The lower end of a range that ends at `high`: the least value, but not farther from 0 than `high`."""
        return min(max(self.minimum, -high), 0.0)

    def levels(self, high: float) -> int:
        """Steps of uint8 between 0 and `high`: all 255 where nothing is negative, about half where much is."""
        return max(round(255 * high / (high - self.low(high))), 1)

    @property
    def counts(self) -> np.ndarray:
        if self.histogram is None:
            raise ValueError("these statistics were collected without histograms")
        return self.histogram

    @property
    def bin_centres(self) -> np.ndarray:
        return (np.arange(BINS) + 0.5) * (self.maximum / BINS)


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

    minima: dict[str, float] = dict.fromkeys(tensors, np.inf)
    maxima: dict[str, list[float]] = {name: [] for name in tensors}
    for name, array in arrays(0):
        minima[name] = min(minima[name], float(array.min()))
        maxima[name].append(float(np.abs(array).max()))
    if not histogram:
        return {name: TensorStatistics(minima[name], tuple(maxima[name])) for name in tensors}
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for name, array in arrays(len(images)):
        counts[name] += _binned(array, max(maxima[name]))
    return {name: TensorStatistics(minima[name], tuple(maxima[name]), counts[name]) for name in tensors}


def _binned(array: np.ndarray, maximum: float) -> np.ndarray:
    if maximum == 0:
        return np.bincount([0], [array.size], BINS).astype(np.int64)
    # in place and by bincount: np.histogram takes several times as long, and this runs for every tensor of every image
    bins = np.abs(array).ravel()
    bins *= np.float32(BINS / maximum)
    return np.bincount(np.minimum(bins.astype(np.int32), BINS - 1), minlength=BINS)


def activation_ranges(statistics: Mapping[str, TensorStatistics], observer: str, percentile: float) -> dict[str, Range]:
    """The range of each tensor, by `observed_range`."""
    return {name: observed_range(observer, of_tensor, percentile) for name, of_tensor in statistics.items()}


def observed_range(observer: str, statistics: TensorStatistics, percentile: float) -> Range:
    """The range (low, high) that an observer picks by absolute values; low is the least value, and at least -high.

    `percentile` is for the observer hist alone: a share in 0..1. Raises UserError for an unknown observer.
    """
    if observer not in OBSERVERS:
        raise UserError(f"compress.calibration.observer={observer}: should be one of {', '.join(OBSERVERS)}")
    if statistics.maximum == 0:
        return (0.0, 0.0)
    high = OBSERVERS[observer](statistics, percentile)
    return (statistics.low(high), high)


def abs_max(statistics: TensorStatistics, percentile: float) -> float:
    """The largest value of all: nothing is clipped."""
    return statistics.maximum


def average(statistics: TensorStatistics, percentile: float) -> float:
    """The mean of the images' largest values."""
    return float(np.mean(statistics.image_maxima))


def hist(statistics: TensorStatistics, percentile: float) -> float:
    """The value below which a share `percentile` of all values lies."""
    share = np.cumsum(statistics.counts) / max(statistics.counts.sum(), 1)
    return float((np.searchsorted(share, percentile) + 1) * statistics.maximum / BINS)


def mse(statistics: TensorStatistics, percentile: float) -> float:
    """The range with the least mean square error of the rounded and clipped values."""
    values, counts = statistics.bin_centres, statistics.counts

    def error(top: float) -> float:
        return float((counts * (values - _rounded(values, top, statistics.levels(top))) ** 2).sum())

    return _least(statistics, error)


def emd(statistics: TensorStatistics, percentile: float) -> float:
    """The range that changes mean and deviation least, PaddleSlim's measure of the earth mover's distance."""
    values, weights = statistics.bin_centres, statistics.counts / max(statistics.counts.sum(), 1)

    def moments(array: np.ndarray) -> np.ndarray:
        mean = float((weights * array).sum())
        return np.array([mean, np.sqrt(max(float((weights * array**2).sum()) - mean**2, 0.0))])

    exact = moments(values)

    def error(top: float) -> float:
        return float(np.abs(exact - moments(_rounded(values, top, statistics.levels(top)))).sum())

    return _least(statistics, error)


def kl(statistics: TensorStatistics, percentile: float) -> float:
    """The range with the least Kullback-Leibler divergence of the rounded distribution (Migacz, 2017, TensorRT)."""
    counts = statistics.counts.astype(np.float64)
    counts[0] = 0  # zeros of a rectifier are exact in any scale, and would outweigh everything
    if not counts.any():
        return statistics.maximum
    levels = statistics.levels(statistics.maximum) + 1
    kept = np.arange(levels, BINS + 1, 16)
    divergences = [_divergence(counts, int(bins), levels) for bins in kept]
    return float(kept[int(np.argmin(divergences))] * statistics.maximum / BINS)


OBSERVERS: dict[str, Callable[[TensorStatistics, float], float]] = {
    "abs_max": abs_max,
    "avg": average,
    "hist": hist,
    "mse": mse,
    "emd": emd,
    "kl": kl,
}


def relative_noise(statistics: TensorStatistics, high: float) -> float:
    """Mean square error of a tensor in int8 with the range end `high`, divided by its mean square."""
    values, counts = statistics.bin_centres, statistics.counts
    power = float((counts * values**2).sum())
    if power == 0 or high == 0:
        return 0.0
    return float((counts * (values - _rounded(values, high, statistics.levels(high))) ** 2).sum()) / power


def _rounded(values: np.ndarray, top: float, levels: int) -> np.ndarray:
    step = top / levels
    return np.asarray(np.clip(np.rint(values / step), 0, levels) * step)


def _least(statistics: TensorStatistics, loss: Callable[[float], float]) -> float:
    tops = statistics.maximum * SHARES
    return float(tops[int(np.argmin([loss(float(top)) for top in tops]))])


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
