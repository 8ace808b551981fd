"""Pure prediction time, measured so that the ratio of two candidates is fair on a machine whose speed drifts."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
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
    def of(samples: "list[float] | tuple[float, ...]") -> "Latency":
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
    """Times every run `iters` times after `warmup` untimed rounds, in turns of several: AAA BBB, AAA BBB, ...

    A change of the machine's speed then hits all alike. Each turn begins with `settle` seconds of untimed runs, at
    least one: Paddle's threads go on spinning after its last run, and an ONNX Runtime that followed at once took three
    times as long. Python's garbage collector rests while timing. Raises `UserError` for `iters` < 1 or `warmup` < 0.
    """
    if iters < 1 or warmup < 0:
        raise UserError(f"benchmark.iters={iters} and benchmark.warmup={warmup}: give at least 1 and 0")
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warmup):
        for run in runs.values():
            run()
    with _garbage_collector_off():
        for turn in np.array_split(np.arange(iters), min(iters, TURNS)):
            for name, run in runs.items():
                _settle(run, settle)
                samples[name] += [_milliseconds(run) for _ in turn]
    return {name: Latency.of(times) for name, times in samples.items()}


def _settle(run: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    run()
    while time.perf_counter() < end:
        run()


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


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
