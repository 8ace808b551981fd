"""Timing is interleaved, undisturbed by the garbage collector, and its statistics are those of the samples."""

import gc

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.evaluation import Latency, measure
from segslim.evaluation.latency import compare, paired_ratio


def test_candidates_take_turns():
    calls = []
    result = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 19, settle=0)
    # two rounds of warm-up, then ten in turn: one run to settle, and two that are timed
    assert "".join(calls) == "ab" * 2 + "aaabbb" * 10
    assert [(len(result[name].samples), result[name].rounds) for name in ("a", "b")] == [(20, 10)] * 2


def test_a_sample_is_the_time_of_one_run_by_the_clock(monkeypatch):
    """A clock that only moves while something runs: 3 ms a run of one, 9 ms of the other, and nothing between."""
    clock = [0]
    monkeypatch.setattr("segslim.hardware.time.perf_counter_ns", lambda: clock[0])

    def taking(milliseconds):
        return lambda: clock.__setitem__(0, clock[0] + milliseconds * 1_000_000)

    result = measure({"once": taking(3), "thrice": taking(9)}, 2, 15, settle=0)
    assert set(result["once"].samples) == {3.0} and set(result["thrice"].samples) == {9.0}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_while_timing_and_is_left_as_it_was(enabled):
    seen = []
    (gc.enable if enabled else gc.disable)()
    try:
        measure({"run": lambda: seen.append(gc.isenabled())}, warmup=0, iters=2, settle=0)
        assert seen == [False] * 4
        assert gc.isenabled() == enabled
        with pytest.raises(ZeroDivisionError):
            measure({"run": lambda: 1 / 0}, warmup=0, iters=1)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_statistics_are_in_milliseconds_of_the_samples():
    latency = Latency.from_samples([1.0, 2.0, 3.0, 10.0])
    assert (latency.mean, latency.median, latency.samples) == (4.0, 2.5, (1.0, 2.0, 3.0, 10.0))
    assert (latency.quickest, Latency.from_samples([4.0, 2.0, 3.0, 10.0], rounds=2).quickest) == (1.0, 2.5)
    assert latency.std == pytest.approx(np.std([1, 2, 3, 10]))
    assert latency.p99 == pytest.approx(3 + 0.97 * 7)


def timed(ratio, noise, rounds=40, drift=0.0, busy=0.0, seed=0):
    """Latencies of a network and of one that takes `ratio` as long, on a machine that drifts and is noisy, and where a
    share `busy` of the runs waits for other processes, five times as long as it takes itself.
    """
    random = np.random.default_rng(seed)
    speed, shape = np.repeat(1 + drift * random.random(rounds), 5), rounds * 5
    found = []
    for length in (10, 10 * ratio):
        waits = random.exponential(50, shape) * (random.random(shape) < busy)
        found.append(Latency.from_samples(length * speed * random.lognormal(0, noise, shape) + waits, rounds))
    return found


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [
        (0.8, 0.2, "faster"),
        (1.25, 0.2, "slower"),
        (1.0, 0.01, "unclear"),
        (0.99, 0.001, "unclear"),
        (0.97, 1.0, "unclear"),
    ],
)
def test_a_verdict_holds_for_the_whole_interval_of_the_ratio(ratio, noise, verdict):
    found = paired_ratio(*timed(ratio, noise, drift=3.0))
    assert found.verdict == verdict and found.low <= found.value <= found.high


def test_other_processes_neither_hide_a_difference_nor_make_one():
    for seed in range(20):
        faster = paired_ratio(*timed(0.7, 0.02, rounds=20, busy=0.6, seed=seed))
        assert faster.verdict == "faster" and faster.value == pytest.approx(0.7, abs=0.05)
        assert paired_ratio(*timed(1.0, 0.02, rounds=20, busy=0.6, seed=seed)).verdict == "unclear"


def test_the_interval_of_the_ratio_holds_the_true_one_nineteen_times_of_twenty():
    ratios = [paired_ratio(*timed(0.9, 0.1, rounds=20, drift=3.0, seed=seed)) for seed in range(200)]
    assert np.mean([ratio.low <= 0.9 <= ratio.high for ratio in ratios]) > 0.9


def test_rounds_go_on_until_it_is_clear_which_is_faster_or_time_is_up(monkeypatch):
    """A clock that only moves while something runs, and one network that takes 3 ms now and 6 ms then."""
    clock, random = [0], np.random.default_rng(0)
    monkeypatch.setattr("segslim.hardware.time.perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr("segslim.hardware.time.perf_counter", lambda: clock[0] / 1e9)

    def taking(*milliseconds):
        return lambda: clock.__setitem__(0, clock[0] + random.choice(milliseconds) * 1_000_000)

    before, after, ratio = compare(taking(10), taking(5), 0, 10, settle=0, seconds=60)
    assert ratio.verdict == "faster" and (before.rounds, len(after.samples)) == (10, 10)
    before, after, ratio = compare(taking(3, 6), taking(3, 6), 0, 10, settle=0, seconds=0.5)
    assert before.rounds > 10 and ratio.verdict == "unclear" and 0.5 < clock[0] / 1e9 < 1.5


@pytest.mark.parametrize(("warmup", "iters"), [(-1, 5), (0, 0)])
def test_senseless_counts_are_refused(warmup, iters):
    with pytest.raises(UserError, match=r"benchmark\.iters"):
        measure({}, warmup, iters)
