"""Pure prediction time, measured so that the ratio of two candidates is fair on a machine whose speed drifts."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from segslim.errors import UserError
from segslim.hardware import garbage_collector_off, turn

ROUNDS = 10
NOISE = 0.02  # of the time: less is called no difference, since two sessions of the same file differ by as much

Verdict = Literal["faster", "slower", "unclear"]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run: statistics of the samples, and the samples in order (`std`: of the population).

    `rounds`: in how many turns they were taken, equally many in each. `quickest`: the median over rounds of the
    quickest run of each, which is what a run takes undisturbed: other processes only ever add to it (Chen and Revels,
    "Robust benchmarking in noisy environments", 2016, arXiv:1608.04295).
    """

    quickest: float
    mean: float
    median: float
    p99: float
    std: float
    samples: tuple[float, ...]
    rounds: int = 1

    @staticmethod
    def from_samples(samples: "list[float] | tuple[float, ...]", rounds: int = 1) -> "Latency":
        """The statistics of at least one sample; p99 is interpolated linearly between samples."""
        times = np.asarray(samples, np.float64)
        return Latency(
            quickest=float(np.median(_quickest(times, rounds))),
            mean=float(times.mean()),
            median=float(np.median(times)),
            p99=float(np.percentile(times, 99)),
            std=float(times.std()),
            samples=tuple(times.tolist()),
            rounds=rounds,
        )


def _quickest(samples: Sequence[float] | np.ndarray, rounds: int) -> np.ndarray:
    """The quickest run of each round."""
    return np.reshape(samples, (rounds, -1)).min(axis=1)


@dataclass(frozen=True)
class Ratio:
    """A latency in units of another's, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the whole interval is on one side of 1, and by more than NOISE."""
        return "faster" if self.high < 1 - NOISE else "slower" if self.low > 1 + NOISE else "unclear"

    @property
    def is_settled(self) -> bool:
        """Whether more rounds would hardly change the verdict: the interval holds neither border."""
        return not any(self.low <= border <= self.high for border in (1 - NOISE, 1 + NOISE))


@runtime_checkable
class Turns(Protocol):
    """What runs, and is timed, in another process."""

    def turn(self, count: int, settle: float) -> list[float]:
        """Milliseconds of each of `count` runs, after untimed ones, at least one, for `settle` seconds."""


Run = Callable[[], object] | Turns


def measure(
    runs: Mapping[str, Run],
    warmup: int = 10,
    iters: int = 50,
    settle: float = 0.25,
    seconds: float = 0.0,
    is_settled: Callable[[Mapping[str, Latency]], bool] | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Latency]:
    """Times every run at least `iters` times, in rounds of some runs of each: AAA BBB, AAA BBB, ...

    A change of the machine's speed then affects all alike. Python's garbage collector is off while timing. Raises
    UserError for `iters` < 1 or `warmup` < 0.

    Args:
        runs: one prediction each, by name.
        warmup: untimed rounds of all runs before the first timed one.
        iters: timed runs of each.
        settle: seconds of untimed runs, at least one, at the start of each turn; none where one run alone is timed.
        seconds: for how long more rounds may be taken, while not
        is_settled: what says, of what was measured so far, that it is enough.
        rounds: at least, where there are as many runs.
    """
    if iters < 1 or warmup < 0:
        raise UserError(f"benchmark.iters={iters} and benchmark.warmup={warmup}: give at least 1 and 0")
    settle = settle if len(runs) > 1 else 0.0
    count = math.ceil(iters / rounds)
    samples: dict[str, list[float]] = {name: [] for name in runs}
    taken, end = 0, None

    def latencies() -> dict[str, Latency]:
        return {name: Latency.from_samples(times, taken) for name, times in samples.items()}

    for run in runs.values():
        if isinstance(run, Turns) and warmup:
            run.turn(warmup, 0.0)
    for _ in range(warmup):
        for run in runs.values():
            if not isinstance(run, Turns):
                run()
    with garbage_collector_off():
        while True:
            for _ in range(math.ceil(iters / count) if end is None else ROUNDS // 2):
                taken += 1
                for name, run in runs.items():
                    samples[name] += run.turn(count, settle) if isinstance(run, Turns) else turn(run, count, settle)
            end = end or time.perf_counter() + seconds
            if is_settled is None or time.perf_counter() >= end or is_settled(latencies()):
                return latencies()


def compare(
    baseline: Run,
    compressed: Run,
    warmup: int = 10,
    iters: int = 50,
    settle: float = 0.25,
    seconds: float = 0.0,
) -> tuple[Latency, Latency, Ratio]:
    """Times both in turn, as `measure`, until it is settled which is faster or `seconds` more have gone by."""

    def ratio(measured: Mapping[str, Latency]) -> Ratio:
        return paired_ratio(measured["baseline"], measured["compressed"])

    runs = {"baseline": baseline, "compressed": compressed}
    measured = measure(runs, warmup, iters, settle, seconds, lambda so_far: ratio(so_far).is_settled)
    return measured["baseline"], measured["compressed"], ratio(measured)


def paired_ratio(baseline: Latency, compressed: Latency, draws: int = 1000, seed: int = 0) -> Ratio:
    """The median over rounds of the ratio of the quickest run of each: what slows the machine down for a while slows
    both, and what disturbs single runs is left out.

    Its interval is a bootstrap's: rounds are drawn with replacement, since runs of one round are alike. Both were timed
    in the same rounds.
    """
    before, after = (_quickest(one.samples, one.rounds) for one in (baseline, compressed))
    ratios = after / before
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(low), float(high))
