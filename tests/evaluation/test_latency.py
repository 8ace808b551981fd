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


def test_a_sample_is_the_time_of_one_run_by_the_clock(monkeypatch):
    """A clock that only moves while something runs: 3 ms a run of one, 9 ms of the other, and nothing between."""
    clock = [0]
    monkeypatch.setattr("segslim.evaluation.latency.time.perf_counter_ns", lambda: clock[0])

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
    assert latency.std == pytest.approx(np.std([1, 2, 3, 10]))
    assert latency.p99 == pytest.approx(3 + 0.97 * 7)


@pytest.mark.parametrize(("warmup", "iters"), [(-1, 5), (0, 0)])
def test_senseless_counts_are_refused(warmup, iters):
    with pytest.raises(UserError, match=r"benchmark\.iters"):
        measure({}, warmup, iters)
