"""A signal at the moments in which nothing is at work yet, or nothing any more: one line, the right exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import ROOT
from tests.faults.command import PRUNE, Typed, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


def handler_stands(process: Path) -> bool:
    """The first thing that run.py does, before Hydra is imported."""
    caught = next(line for line in (process / "status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1)


def hydra_is_there(process: Path) -> bool:
    return "_yaml" in (process / "maps").read_text()


def paddle_is_there(process: Path) -> bool:
    """While it is imported: this is its first library."""
    return "libpaddle" in (process / "maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "moment", [handler_stands, hydra_is_there, paddle_is_there], ids=lambda moment: moment.__name__
)
def test_while_it_starts(tmp_path, moment, number, record):
    command = [sys.executable, str(ROOT / "run.py"), *PRUNE]
    unmeasured = {
        key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")
    }  # it has a handler
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, env=unmeasured, **streams) as typed:
        until(lambda: typed.poll() is not None or moment(Path(f"/proc/{typed.pid}")))
        typed.send_signal(number)
        _, told = typed.communicate()
    assert typed.returncode == 128 + number and _is_one_line(told, number)
    record(number.name, moment.__name__, typed.returncode, 0)


BETWEEN = {
    "in a run": ([], [], ".segslim/artifacts/data-*"),
    "in a sweep": (["-m"], ["seed=0,1"], ".segslim/artifacts/data-*"),
    "before the second job": (["-m"], ["compress.ratio=5,0.2"], "multirun/*/*/0/failure.json"),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(("flags", "more", "event"), BETWEEN.values(), ids=BETWEEN)
def test_between_stages_and_jobs(tmp_path, flags, more, event, number, record):
    typed = Typed(*flags, *PRUNE, *more, cwd=tmp_path)
    until(lambda: not typed.running or list(tmp_path.glob(event)))
    os.kill(typed.pid, number)
    code = typed.wait()
    told = typed.stderr.splitlines(keepends=True)
    assert code == 128 + number and "Traceback" not in typed.stderr and _is_one_line(told[-1], number)
    record(number.name, event, code, 0)


def _is_one_line(told: str, number: signal.Signals) -> bool:
    return told.count("\n") == 1 and told.startswith(f"stopped by {number.name}: ")
