"""Runs that train together: they agree before, all say the same when it ends, and none is left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from segslim.errors import UserError
from segslim.training.launch import Launch
from tests.command import ROOT, segslim

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


@pytest.mark.slow
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
    assert code == 2 and re.fullmatch(r"launch: process 0 of 2, on \S+ has ended, .*\n", err), err


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


@pytest.mark.slow
def test_a_stranger_who_connects_takes_no_part(launch: Any, addresses: list[str], tmp_path: Path) -> None:
    first = Run(0, addresses, facts=FACTS, store=str(tmp_path), trainings=[GOOD])
    host, port = addresses[0].split(":")
    strangers = []
    for said in (b"GET / HTTP/1.1\r\n\r\n", b'\0\0\0\x0b["x", null]', b"", b"\0\0\0\x0b and no more"[:6]):
        while True:
            try:
                strangers.append(socket.create_connection((host, int(port))))
                strangers[-1].sendall(said)
                break
            except ConnectionRefusedError:
                assert first.process.poll() is None
    second = Run(1, addresses, facts=FACTS, store=str(tmp_path))
    assert [run.end()[0] for run in (first, second)] == [0, 0]
    for stranger in strangers:
        stranger.close()


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


# --- two hosts


class Host:
    """A host as far as a launch sees it: a network namespace, a name, and what names lead to which address."""

    def __init__(self, name: str, address: str, hosts: Path) -> None:
        self.name, self.address, self.names = name, address, hosts
        setting = f'mount --bind {hosts} /etc/hosts && hostname {name} && exec "$@"'
        self._enter = ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", setting, "sh"]

    def start(self, *command: str, folder: Path) -> subprocess.Popen[str]:
        words = [sys.executable if word == "python" else word for word in command]
        with (folder / f"{self.name}.txt").open("w") as file:
            return subprocess.Popen(
                [*self._enter, *words], cwd=folder, stdout=file, stderr=file, text=True, start_new_session=True
            )


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two, at 10.77.0.1 and 10.77.0.2."""
    names = [f"segslim{os.getpid()}{letter}" for letter in "ab"]
    made = [["ip", "netns", "add", name] for name in names]
    made += [["ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "eth0", "netns", names[1]]]
    for number, name in enumerate(names, 1):
        within = ["ip", "-n", name]
        made += [[*within, "address", "add", f"10.77.0.{number}/24", "dev", "eth0"]]
        made += [[*within, "link", "set", device, "up"] for device in ("lo", "eth0")]
    try:
        for command in made:
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"network namespaces need root and iproute2: {getattr(error, 'stderr', error)}")
        found = []
        for number, name in enumerate(names, 1):
            file = tmp_path_factory.mktemp("hosts") / name
            file.write_text(f"127.0.0.1 localhost\n10.77.0.{number} {name}\n")
            found.append(Host(name, f"10.77.0.{number}", file))
        yield found
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


PAGE = (ROOT / "docs" / "training-on-several-cores.md").read_text(encoding="utf-8")
DOCUMENTED = re.search(r"uv run (python -m paddle\.distributed\.launch .* run\.py) (.*)\n", PAGE)
IMAGES = ("dataset.size=[64,64]", "dataset.source.train_images=8", "dataset.source.val_images=2", "num_workers=0")
TRAINED = (*IMAGES, "stages.last=[]", "train.iters=6", "train.save_interval=2")


def _launched(
    hosts: list[Host], folder: Path, *overrides: str, ips: bool = False, host: bool = False
) -> list[subprocess.Popen[str]]:
    """What the page says, typed at both hosts."""
    assert DOCUMENTED is not None
    command = DOCUMENTED[1].replace("run.py", str(ROOT / "run.py"))
    if ips:
        command = re.sub(r"--nnodes 2 --master \S+", "--ips 10.77.0.1,10.77.0.2", command)
    folder.mkdir()
    words = [*DOCUMENTED[2].split(), *TRAINED, *overrides]
    return [
        each.start(
            *command.replace("--nnodes", f"--host {each.address} --nnodes" if host else "--nnodes").split(),
            *words,
            folder=folder,
        )
        for each in hosts
    ]


def _ends(runs: list[subprocess.Popen[str]], folder: Path) -> str:
    """What they and their launchers said, once they have ended."""
    for run in runs:
        run.wait(timeout=300)
    return "\n".join(file.read_text() for file in [*folder.glob("*.txt"), *folder.glob("log/workerlog*")])


def _weights(store: Path) -> set[str]:
    """SHA-256 of the trained weights."""
    manifests = [json.loads(file.read_text()) for file in store.glob("artifacts/train-*/manifest.json")]
    return {manifest["files"]["weights.safetensors"] for manifest in manifests}


@pytest.mark.long
def test_two_hosts_train_by_the_documented_command_to_the_weights_of_two_processes(
    hosts: list[Host], tmp_path: Path
) -> None:
    """By --master, and by --ips twice on one store, each time another training."""
    assert DOCUMENTED is not None
    options = (*DOCUMENTED[2].split(), *TRAINED, "train.processes=2")
    for seed in (0, 1):
        answer = segslim(*options, f"seed={seed}", "store=alone", cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
    for name, seed, ips in (("master", 0, False), ("first", 0, True), ("second", 1, True)):
        store = tmp_path / ("by_master" if name == "master" else "by_ips")
        runs = _launched(hosts, tmp_path / name, f"store={store}", f"seed={seed}", ips=ips)
        said = _ends(runs, tmp_path / name)
        assert [run.returncode for run in runs] == [0, 0], said
    alone = _weights(tmp_path / "alone")
    assert len(alone) == 2 and _weights(tmp_path / "by_ips") == alone
    assert _weights(tmp_path / "by_master") < alone


@pytest.mark.long
def test_a_host_that_is_cut_off_or_loses_a_process_ends_the_training_in_one_line_everywhere(
    hosts: list[Host], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    runs = _launched(hosts, tmp_path / "killed", f"store={store}", "train.iters=100000")
    _until_saved(store, runs)
    for pid in _trainers(hosts[1]):
        os.kill(pid, signal.SIGKILL)
    said = _ends(runs, tmp_path / "killed")
    lines = re.findall(r"error: training: process 1 of 2, on (\S+) was killed by SIGKILL", said)
    assert set(lines) == {hosts[1].name} and "Traceback" not in said, said

    runs = _launched(hosts, tmp_path / "cut", f"store={store}", "train.iters=100000")
    _until_saved(store, runs)
    subprocess.run(["ip", "-n", hosts[1].name, "link", "set", "eth0", "down"], check=True)
    try:
        said = _ends(runs, tmp_path / "cut")
    finally:
        subprocess.run(["ip", "-n", hosts[1].name, "link", "set", "eth0", "up"], check=True)
    assert "Traceback" not in said and len(re.findall(r"error: training: .* has ended", said)) >= 2, said


@pytest.mark.long
def test_a_host_whose_name_leads_to_itself_is_named(hosts: list[Host], tmp_path: Path) -> None:
    """As Debian writes it into /etc/hosts, with --host; without, Paddle's launcher waits for ever."""
    right = hosts[1].names.read_text()
    hosts[1].names.write_text(f"127.0.0.1 localhost\n127.0.1.1 {hosts[1].name}\n")
    try:
        said = _ends(_launched(hosts, tmp_path / "run", "store=store", host=True), tmp_path / "run")
    finally:
        hosts[1].names.write_text(right)
    told = f"error: launch: the name of this host, {hosts[1].name}, means 127.0.1.1 here, .* 10.77.0.2 in /etc/hosts"
    assert re.search(told, said) and "Traceback" not in said, said


def _until_saved(store: Path, runs: list[subprocess.Popen[str]]) -> None:
    """Until the training goes on from a snapshot, or has written one."""
    files = list(store.glob("work/*/scratch/training.safetensors"))
    before = files[0].stat().st_mtime_ns if files else 0
    while not files or files[0].stat().st_mtime_ns == before:
        assert all(run.poll() is None for run in runs)
        time.sleep(0.05)
        files = list(store.glob("work/*/scratch/training.safetensors"))


def _trainers(host: Host) -> list[int]:
    """The process ids of what trains on a host."""
    listed = subprocess.run(["ip", "netns", "pids", host.name], check=True, capture_output=True, text=True)
    found = []
    for pid in map(int, listed.stdout.split()):
        with suppress(OSError):
            if "training_process" in Path("/proc", str(pid), "cmdline").read_text():
                found.append(pid)
    return found
