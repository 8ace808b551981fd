"""Pure prediction time, measured so that the ratio of two candidates is fair on a machine whose speed drifts."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from segslim.errors import UserError

TURNS = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run: statistics of the samples, and the samples in order (`std`: of the population)."""

    mean: float
    median: float
    p99: float
    std: float
    samples: tuple[float, ...]

    @staticmethod
    def from_samples(samples: "list[float] | tuple[float, ...]") -> "Latency":
        """The statistics of at least one sample; p99 is interpolated linearly between samples."""
        times = np.asarray(samples, np.float64)
        return Latency(
            mean=float(times.mean()),
            median=float(np.median(times)),
            p99=float(np.percentile(times, 99)),
            std=float(times.std()),
            samples=tuple(times.tolist()),
        )


def measure(
    runs: Mapping[str, Callable[[], object]], warmup: int = 10, iters: int = 50, settle: float = 0.25
) -> dict[str, Latency]:
    """Times every run `iters` times, in turns of several: AAA BBB, AAA BBB, ...

    A change of the machine's speed then affects all alike. Python's garbage collector is off while timing. Raises
    UserError for `iters` < 1 or `warmup` < 0.

    Args:
        runs: one prediction each, by name.
        warmup: untimed rounds of all runs before the first timed one.
        iters: timed runs of each.
        settle: seconds of untimed runs, at least one, at the start of each turn; none where one run alone is timed.
    """
    if iters < 1 or warmup < 0:
        raise UserError(f"benchmark.iters={iters} and benchmark.warmup={warmup}: give at least 1 and 0")
    samples: dict[str, list[float]] = {name: [] for name in runs}
    settle = settle if len(runs) > 1 else 0.0
    for _ in range(warmup):
        for run in runs.values():
            run()
    with _garbage_collector_off():
        for turn in np.array_split(np.arange(iters), min(iters, TURNS)):
            for name, run in runs.items():
                # Paddle's threads spin on after its last run: ONNX Runtime right behind it took three times as long
                end = time.perf_counter() + settle
                run()
                while time.perf_counter() < end:
                    run()
                for _ in turn:
                    start = time.perf_counter_ns()
                    run()
                    samples[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: Latency.from_samples(times) for name, times in samples.items()}


def median_ratio(
    baseline: Sequence[float], compressed: Sequence[float], rounds: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """The ratio of two medians and its 95 % interval: (ratio, low, high), of samples that `measure` took in turn.

    Turns are drawn with replacement, both networks' samples of a turn together, since runs of one turn are alike.
    """
    before, after = (np.array_split(np.asarray(times), min(len(times), TURNS)) for times in (baseline, compressed))
    random = np.random.default_rng(seed)
    ratios = []
    for drawn in random.integers(len(before), size=(rounds, len(before))):
        medians = [np.median(np.concatenate([turns[at] for at in drawn])) for turns in (before, after)]
        ratios.append(medians[1] / medians[0])
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(compressed) / np.median(baseline)), float(low), float(high)


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
