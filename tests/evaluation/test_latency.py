"""Timing is interleaved, undisturbed by the garbage collector, and its statistics are those of the samples."""

import gc

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.evaluation import Latency, measure


def test_candidates_take_turns():
    calls = []
    result = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 7, settle=0)
    # two rounds of warm-up, then five turns: one run to settle, and one or two timed
    assert "".join(calls) == "ab" * 2 + "aaabbb" * 2 + "aabb" * 3
    assert [len(result[name].samples) for name in ("a", "b")] == [7, 7]


def test_slower_work_takes_longer_by_about_its_factor():
    values = np.random.default_rng(0).random(200_000)
    result = measure({"once": lambda: np.sort(values), "thrice": lambda: [np.sort(values) for _ in range(3)]}, 2, 15)
    assert 2 < result["thrice"].median / result["once"].median < 4


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
    latency = Latency.of([1.0, 2.0, 3.0, 10.0])
    assert (latency.mean, latency.median, latency.samples) == (4.0, 2.5, (1.0, 2.0, 3.0, 10.0))
    assert latency.std == pytest.approx(np.std([1, 2, 3, 10]))
    assert latency.p99 == pytest.approx(3 + 0.97 * 7)


@pytest.mark.parametrize(("warmup", "iters"), [(-1, 5), (0, 0)])
def test_senseless_counts_are_refused(warmup, iters):
    with pytest.raises(UserError, match=r"benchmark\.iters"):
        measure({}, warmup, iters)
