"""A sweep whose processes are killed, or whose jobs all fail: one line why, and what to type."""

import os
import re
import signal
import sys

import pytest

from tests.command import segslim
from tests.faults.command import TINY, until
from tests.faults.sweeps import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
SIDE_BY_SIDE = (*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "compress=prune", "train.iters=4000")


@pytest.fixture
def sweep(tmp_path):
    """Two trainings side by side, of which one has saved what it can go on from."""
    started = Sweep(*SIDE_BY_SIDE, "seed=0,1", cwd=tmp_path)
    try:
        started.wait_until(lambda: list((tmp_path / ".segslim" / "work").glob("*/scratch/training.safetensors")))
        yield started
    finally:
        started.end()


def test_a_sweep_that_is_stopped_stops_its_jobs(sweep, record):
    os.kill(sweep.pid, signal.SIGTERM)
    assert sweep.wait() == 143
    assert sweep.stderr.count("\n") == 1 and "stopped by SIGTERM" in sweep.stderr
    until(lambda: not sweep.workers())
    record("SIGTERM", "a sweep by joblib", 143, 0)


def test_a_job_that_is_killed_ends_its_sweep_in_one_line_and_a_table_that_says_what_to_type(sweep, record):
    for worker in sweep.workers():
        os.kill(worker, signal.SIGKILL)
    assert sweep.wait() == 1
    told = [line for line in sweep.stderr.splitlines() if "resource_tracker" not in line]
    assert len(told) == 1 and "the sweep was cut off: TerminatedWorkerError" in told[0] and "SIGKILL" in told[0]
    assert re.search(r"2 of 2 jobs are not done \(.*\); the same command goes on:\n    uv run run.py -m ", sweep.stdout)
    record("SIGKILL", "a job by joblib", 1, 0)


def test_a_search_in_which_every_trial_fails_says_why_and_with_which_command(tmp_path):
    search = ("experiment=search_fastest", "hydra.sweeper.n_trials=2", "compress.ratio=choice(7,8)")
    answer = segslim("-m", *search, cwd=tmp_path)
    *jobs, last = [line for line in answer.stderr.splitlines() if line.startswith("error")]
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert len(jobs) == 2 and last.startswith("error: all 2 jobs have failed, the first with: compress.ratio=")
    assert "; alone: uv run run.py " in last
