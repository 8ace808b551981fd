"""What becomes of a training when its processes end, in every way that they can; with processes that train nothing."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from segslim.errors import Interrupted, UserError
from segslim.training.parallel.supervision import run_together
from tests.training.parallel.light_member import COMMAND


class Ears(list[tuple[str, Any]]):
    """What was heard."""

    def __call__(self, kind: str, content: Any) -> None:
        self.append((kind, content))

    def processes(self) -> list[int]:
        return [content[1] for kind, content in self if kind == "started"]


def _run(*ends: str, **given: Any) -> tuple[Any, Ears]:
    ears = Ears()
    job = {"ends": ends, "given": [1.5, "ü\n"]}
    try:
        return run_together(COMMAND, len(ends), job, "cpu", ears, **given), ears
    finally:
        assert not any(Path("/proc", str(process)).exists() for process in ears.processes())


def test_what_the_first_process_returns_is_the_result_and_the_others_are_not_waited_for() -> None:
    result, ears = _run("returns", "waits")
    assert result == {"rank": 0, "given": [1.5, "ü\n"]}
    assert ("log", ["segslim.toy", 30, "process 0 is done"]) in ears


@pytest.mark.parametrize(
    ("how", "told"),
    [("killed", "process 1 of 2 was killed by SIGKILL"), ("leaves", "process 1 of 2 ended with code 3")],
)
def test_process_that_dies_ends_the_training_in_one_line(how: str, told: str) -> None:
    with pytest.raises(UserError, match=f"^training: {told}: the same command goes on from") as caught:
        _run("waits", how)
    assert "\n" not in str(caught.value)


def test_mistake_of_the_user_counts_before_the_death_of_another() -> None:
    with pytest.raises(UserError, match=r"^a label is wrong$"):
        _run("killed", "wrong")


def test_death_of_a_process_counts_before_what_the_others_make_of_it() -> None:
    with pytest.raises(UserError, match=r"process 1 of 2 was killed"):
        _run("defect", "killed")


def test_defect_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)process 1 failed:.*Traceback.*ValueError: a defect"):
        _run("waits", "defect")


def test_signal_ends_the_training_where_the_first_process_saved_it() -> None:
    ears = Ears()

    def stop() -> int:
        return signal.SIGTERM if ("ready", None) in ears else 0

    with pytest.raises(Interrupted, match="stopped by SIGTERM: training is saved at iteration 7 of 9") as caught:
        run_together(COMMAND, 2, {"ends": ["stops", "waits"]}, "cpu", ears, stop)
    assert caught.value.exit_code == 143


def test_no_process_outlives_a_supervisor_that_is_killed() -> None:
    with subprocess.Popen([*COMMAND, "supervisor"], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        lines = [supervisor.stdout.readline() for _ in range(2)]
        members = [int(re.findall(r"\d+", line)[1]) for line in lines]
        assert all(Path("/proc", str(member)).exists() for member in members)
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        deadline = time.monotonic() + 60
        while any(map(_lives, members)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _lives(process: int) -> bool:
    """Not so a dead one that nobody has asked after."""
    try:
        return Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
