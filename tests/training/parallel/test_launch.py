"""Runs that Paddle's launcher starts: what the first tells the others, and the launcher's own command."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from segslim.errors import UserError
from segslim.training.parallel.launch import Launch, launch_of, told_when_it_ends
from tests.command import ROOT


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", "127.0.0.1:1234,127.0.0.1:1235")


def test_the_others_do_every_job_in_turn_and_leave_when_the_first_ends(launched: None, tmp_path: Path) -> None:
    helping = launch_of(str(tmp_path))
    assert helping is not None and (helping.rank, helping.size) == (1, 2)
    done: list[dict] = []
    thread = threading.Thread(target=helping.help, args=[done.append])
    thread.start()
    first = Launch(0, 2, helping.folder)
    with pytest.raises(RuntimeError), told_when_it_ends(first):
        for stage in ("train", "retrain"):
            first.publish({"stage": stage})
        raise RuntimeError("it ends, however")
    thread.join()
    assert [job["stage"] for job in done] == ["train", "retrain"]


def test_batch_that_cannot_be_shared_out_is_told(launched: None, tmp_path: Path) -> None:
    launch = launch_of(str(tmp_path))
    assert launch is not None
    with pytest.raises(UserError, match=r"train\.batch_size=3: should be a multiple of 2"):
        launch.check("train", 3)


def test_a_run_by_itself_is_of_no_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    assert launch_of(str(tmp_path)) is None


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
    assert json.loads((folder / "metrics.json").read_text())["iteration"] == 3
    assert (folder / "curve.csv").read_text().count("\n") == 4
