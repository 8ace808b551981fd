"""Runs that train together: they agree before, all say the same when it ends, and none is left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segslim.errors import UserError
from segslim.training.launch import Launch
from tests.command import ROOT

FACTS = {"train.iters of train": 10, "fingerprint of train": "f00"}
GOOD = ["returns", "returns"]


class Run:
    """One of two runs of a launch, a process by itself."""

    def __init__(self, rank: int, addresses: list[str], folder: Path = ROOT, **asked: Any) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PADDLE_TRAINERS_NUM": str(len(addresses)),
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
        }
        command = [sys.executable, "-m", "tests.training.launched_run", json.dumps(asked)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def says(self, words: str) -> None:
        """Waits until it does."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if words in line:
                return
        raise AssertionError(self.process.communicate()[1])

    def end(self) -> tuple[int, str, str]:
        """Its exit code, the rest of what it said, and its complaints."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
def addresses() -> list[str]:
    """Two that are free."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    found = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return found


@pytest.fixture
def launch(addresses: list[str], tmp_path: Path) -> Iterator[Any]:
    """Starts two runs of one launch; what is left of them ends with the test."""
    runs: list[Run] = []

    def begin(first: dict[str, Any], second: dict[str, Any] | None = None) -> list[Run]:
        for rank, asked in enumerate((first, second or {})):
            plain = {"facts": FACTS, "store": str(tmp_path), "trainings": [GOOD]}
            runs.append(Run(rank, addresses, **{**plain, **asked}))
        return runs[-2:]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()


def test_runs_train_together_again_and_again_and_leave_with_the_first(launch: Any, tmp_path: Path) -> None:
    first, second = (run.end() for run in launch({"trainings": [GOOD, GOOD]}))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert first[1].count("'rank': 0") == 2
    assert not list(tmp_path.iterdir())  # what they agreed by is gone


def test_a_second_launch_by_the_same_addresses_and_store_trains_its_own_job(launch: Any) -> None:
    """--ips gives every launch the same ones: runs took the job of an earlier launch for theirs."""
    for ends in (GOOD, ["returns", "leaves"], GOOD):
        first, second = (run.end() for run in launch({"trainings": [ends]}))
    assert (first[0], second[0]) == (0, 0)


def test_another_command_is_refused_by_all_before_they_train(launch: Any) -> None:
    first, second = (run.end() for run in launch({}, {"facts": {**FACTS, "train.iters of train": 20}}))
    assert (first[0], second[0]) == (2, 2)
    assert "train.iters of train is 20 for process 1 of 2" in first[2] and "and 10 for process 0" in first[2]
    assert first[2] == second[2] and first[2].count("\n") == 1
    assert "rank" not in first[1]


def test_a_store_that_is_not_shared_is_named_by_all(addresses: list[str], tmp_path: Path) -> None:
    """Each host has a folder of that name, as here each process."""
    runs = []
    for rank, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        runs.append(Run(rank, addresses, tmp_path / name, facts=FACTS, store="/proc/self/cwd", trainings=[GOOD]))
    first, second = (run.end() for run in runs)
    assert (first[0], second[0]) == (2, 2) and first[2] == second[2], (first, second)
    assert first[2].startswith("store=/proc/self/cwd: process 1 of 2, on ") and first[2].count("\n") == 1


def test_a_first_run_that_is_killed_is_told_by_the_others(launch: Any) -> None:
    first, second = launch({"trainings": [], "waits": True})
    second.says("agreed")
    first.says("agreed")
    first.process.kill()
    code, _, err = second.end()
    assert code == 2 and re.fullmatch(r"launch: process 0 of 2, on \S+ has ended: .*\n", err), err


@pytest.mark.parametrize("ends", [["waits", "killed"], ["killed", "waits"], ["defect", "killed"]])
def test_a_process_that_is_killed_is_told_by_all_in_the_same_line(launch: Any, ends: list[str]) -> None:
    first, second = (run.end() for run in launch({"trainings": [ends]}))
    rank = ends.index("killed")
    assert (first[0], second[0]) == (2, 2) and first[2] == second[2], (first, second)
    assert f"training: process {rank} of 2, on {socket.gethostname()} was killed by SIGKILL" in first[2]
    assert first[2].count("\n") == 1


def test_a_signal_to_any_run_ends_all_where_the_first_saved_it(launch: Any) -> None:
    first, second = launch({"trainings": [["stops", "waits"]]})
    first.says("ready")
    os.kill(second.process.pid, signal.SIGTERM)
    ends = [run.end() for run in (first, second)]
    assert [end[0] for end in ends] == [143, 143], ends
    assert all("training is saved at iteration 7 of 9" in end[2] for end in ends)


def test_a_stranger_who_connects_takes_no_part(launch: Any, addresses: list[str], tmp_path: Path) -> None:
    first = Run(0, addresses, facts=FACTS, store=str(tmp_path), trainings=[GOOD])
    host, port = addresses[0].split(":")
    for said in (b"GET / HTTP/1.1\r\n\r\n", b'\0\0\0\x0b["x", null]', b""):
        while True:
            try:
                with socket.create_connection((host, int(port))) as stranger:
                    stranger.sendall(said)
                break
            except ConnectionRefusedError:
                assert first.process.poll() is None
    second = Run(1, addresses, facts=FACTS, store=str(tmp_path))
    assert [run.end()[0] for run in (first, second)] == [0, 0]


def test_an_address_that_is_taken_is_named(addresses: list[str], tmp_path: Path) -> None:
    host, port = addresses[0].split(":")
    with socket.create_server((host, int(port))):
        code, _, err = Run(0, addresses, facts=FACTS, store=str(tmp_path)).end()
    assert code == 2 and err.startswith(f"launch: {addresses[0]}, ") and err.count("\n") == 1


def test_batch_that_cannot_be_divided_is_refused(addresses: list[str]) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size=3: .* 2"):
        Launch(1, addresses).check("train", 3)


def test_a_run_by_itself_belongs_to_no_launch() -> None:
    assert Launch.of_this_process() is None
