"""A sweep whose processes are killed, or whose jobs all fail: one line why, and what to type."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.command import ROOT, segslim
from tests.faults.command import PRUNE, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
SIDE_BY_SIDE = (*PRUNE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "train.iters=4000")


class Sweep:
    """`python run.py -m ARGUMENTS` at work in a folder."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._cwd = cwd
        with (cwd / "stdout.txt").open("w") as out, (cwd / "stderr.txt").open("w") as err:
            command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments]
            self._process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, start_new_session=True)
        self.pid = self._process.pid

    def wait_until(self, seen: Callable[[], object]) -> None:
        """Until `seen()`; fails where the sweep ends before."""
        until(lambda: seen() or self._process.poll() is not None)
        assert seen(), self.stderr

    def wait(self) -> int:
        return self._process.wait(timeout=300)

    def processes(self) -> list[tuple[int, str]]:
        """(process id, command line) of all in its session that live."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state != "Z":
                    found.append((int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")))
            except (OSError, ValueError):  # no process, or not any more
                continue
        return found

    def workers(self) -> list[int]:
        return [pid for pid, command in self.processes() if "popen_loky" in command]

    def end(self) -> None:
        """Kills what is left of it."""
        for pid, _ in self.processes():
            os.kill(pid, signal.SIGKILL)

    @property
    def stdout(self) -> str:
        return (self._cwd / "stdout.txt").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return (self._cwd / "stderr.txt").read_text(encoding="utf-8")


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


def test_a_job_that_is_killed_again_and_again_ends_no_other(tmp_path, record):
    started = Sweep(
        *PRUNE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "train.iters=100", "seed=0,1", cwd=tmp_path
    )

    def second_job() -> list[int]:
        return [pid for pid in started.workers() if any(file.endswith("/1/run.log") for file in _open_files(pid))]

    try:
        for last in ("one of the jobs was ended by SIGKILL", "job 1 was ended twice by SIGKILL and is left out"):
            started.wait_until(second_job)
            os.kill(second_job()[0], signal.SIGKILL)
            started.wait_until(lambda last=last: last in started.stderr)
        assert started.wait() == 1
    finally:
        started.end()
    assert len(list(tmp_path.glob("multirun/*/*/0/report.json"))) == 1
    assert re.search(
        r"1 of 2 jobs are not done \(.*\); the same command goes on:\n    uv run run.py -m ", started.stdout
    )
    record("SIGKILL", "a job by joblib", 1, 0)


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path("/proc", str(pid), "fd").glob("*"):
        with suppress(OSError):
            found.append(str(link.readlink()))
    return found


def test_a_search_in_which_every_trial_fails_says_why_and_with_which_command(tmp_path):
    search = ("experiment=search_fastest", "hydra.sweeper.n_trials=2", "compress.ratio=choice(7,8)")
    answer = segslim("-m", *search, cwd=tmp_path)
    *jobs, last = [line for line in answer.stderr.splitlines() if line.startswith("error")]
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert len(jobs) == 2 and last.startswith("error: all 2 jobs have failed, the first with: compress.ratio=")
    assert "; alone: uv run run.py " in last


@pytest.mark.long
def test_jobs_by_submitit_go_on_when_the_sweep_is_stopped_and_it_says_how_to_end_them(tmp_path):
    jobs = (*PRUNE, "hydra/launcher=submitit_local", "train.iters=4000")
    started = Sweep(*jobs, "seed=0,1", cwd=tmp_path)
    pids: list[int] = []
    try:
        started.wait_until(lambda: list((tmp_path / ".segslim" / "work").glob("*/scratch/training.safetensors")))
        os.killpg(started.pid, signal.SIGINT)  # as Ctrl-C does
        assert started.wait() == 130
        told = re.search(
            r"stopped by SIGINT: 2 of 2 jobs go on \(kill (\d+) (\d+) ends them; .* report ", started.stderr
        )
        assert told is not None, started.stderr
        pids = [int(told[1]), int(told[2])]
        assert all(Path("/proc", str(pid)).exists() for pid in pids)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids))
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.end()
