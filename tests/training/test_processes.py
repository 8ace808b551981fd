"""What becomes of a training when its processes end, in every way they can; and runs that Paddle's launcher starts."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segslim.errors import Interrupted, UserError
from segslim.training.processes import WORTH_IT, count_processes, run_processes
from tests.command import ROOT
from tests.training.idle_worker import COMMAND


@pytest.mark.parametrize(
    ("cores", "batch_size", "count"), [(1, 8, 1), (2, 8, 2), (2, 5, 1), (6, 8, 4), (6, 9, 3), (64, 8, 8)]
)
def test_as_many_as_there_are_cores_and_divide_the_batch(
    monkeypatch: pytest.MonkeyPatch, cores: int, batch_size: int, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert count_processes("auto", "cpu", batch_size, WORTH_IT) == count
    assert count_processes("auto", "cpu", batch_size, WORTH_IT - 1) == 1
    assert count_processes(3, "cpu", 6, 1) == 3


def _run(*ends: str, **arguments: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Returns the result and the messages; no process is left, however it ends."""
    messages: list[tuple[str, Any]] = []
    job = {"ends": ends, "given": [1.5, "ü\n"]}
    try:
        return run_processes(
            COMMAND, len(ends), job, "cpu", lambda *message: messages.append(message), **arguments
        ), messages
    finally:
        processes = [content[1] for kind, content in messages if kind == "started"]
        assert not any(Path("/proc", str(process)).exists() for process in processes)


def test_what_the_first_process_returns_is_the_result_and_the_others_are_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        result, _ = _run("returns", "waits")
    assert result == {"rank": 0, "given": [1.5, "ü\n"]}
    assert ("segslim.toy", logging.WARNING, "process 0 is done") in caplog.record_tuples


@pytest.mark.parametrize(
    ("ends", "fact"),
    [
        (("waits", "killed"), "process 1 of 2 was killed by SIGKILL: the same command goes on"),
        (("waits", "leaves"), "process 1 of 2 ended with code 3: the same command goes on"),
        (("killed", "wrong"), r"^a label is wrong$"),  # what a user can mend counts before the death of another
        (("defect", "killed"), r"process 1 of 2 was killed"),  # and a death before what the others make of it
    ],
)
def test_process_that_ends_ends_the_training_in_one_line(ends: tuple[str, ...], fact: str) -> None:
    with pytest.raises(UserError, match=fact) as caught:
        _run(*ends)
    assert "\n" not in str(caught.value)


def test_defect_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)process 1 .*Traceback.*ValueError: a defect"):
        _run("waits", "defect")


def test_signal_ends_the_training_where_the_first_process_saved_it() -> None:
    messages: list[str] = []

    def stop() -> int:
        return signal.SIGTERM if "ready" in messages else 0

    job = {"ends": ["stops", "waits"]}
    with pytest.raises(Interrupted, match=r"SIGTERM: .* iteration 7 of 9") as caught:
        run_processes(COMMAND, 2, job, "cpu", lambda kind, content: messages.append(kind), stop)
    assert caught.value.exit_code == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_processes_start_is_no_failure(number: int) -> None:
    """They have no handlers yet: the signal ends the first one, or is repeated until it is handled."""
    with pytest.raises(Interrupted) as caught:
        _run("stops", "waits", stop=lambda: number)
    assert caught.value.exit_code == 128 + number


def test_no_process_outlives_a_supervisor_that_is_killed() -> None:
    with subprocess.Popen([*COMMAND, "supervisor"], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        lines = [supervisor.stdout.readline() for _ in range(2)]
        workers = [int(re.findall(r"\d+", line)[1]) for line in lines]
        assert all(Path("/proc", str(worker)).exists() for worker in workers)
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        deadline = time.monotonic() + 60
        while any(map(_is_alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _is_alive(process: int) -> bool:
    """A zombie, which nobody has waited for, is not."""
    try:
        return Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_paddles_launcher_trains_by_two_processes(tmp_path: Path) -> None:
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo", "--log_dir", "log"]
    images = ["dataset.size=[64,64]", "dataset.source.train_images=4", "dataset.source.val_images=2"]
    training = ["stages.last=[]", "train.iters=3", "train.batch_size=2", "num_workers=0"]
    command = [sys.executable, *launcher, str(ROOT / "run.py"), *images, *training]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    logs = "\n".join(file.read_text() for file in (tmp_path / "log").glob("workerlog.*"))
    assert answer.returncode == 0, answer.stderr + logs
    (folder,) = (tmp_path / ".segslim/artifacts").glob("train-*")
    history = json.loads((folder / "measured.json").read_text())["training"]["history"]
    assert [entry["iteration"] for entry in history] == [1, 2, 3]
    assert (folder / "curve.csv").read_text().count("\n") == 4
