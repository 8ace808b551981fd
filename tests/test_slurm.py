"""Sweeps on a real Slurm: jobs that Slurm ends go on, those of which one dies are waited for, and all is told."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import slurm
from tests.command import ROOT, TINY, segslim

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(slurm.missing() is not None, reason=f"no Slurm: {slurm.missing()}"),
]
SLURM = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10")
#: Long enough to be hit, with processes of their own that load the data.
TRAINING = (*TINY, "compress=none", "stages.last=[]", "train.iters=400", "train.save_interval=40", "num_workers=2")


class Sweep:
    """`python run.py -m ...` at work in a folder."""

    def __init__(self, *arguments: str, cwd: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = cwd, {**os.environ, **environment}
        with (cwd / "said.txt").open("w") as said:
            command = [sys.executable, str(ROOT / "run.py"), *SLURM, *arguments, "hydra.sweep.dir=sweep"]
            self.process = subprocess.Popen(command, cwd=cwd, env=self._environment, stdout=said, stderr=said)

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    @property
    def logs(self) -> str:
        return "\n".join(file.read_text() for file in self.folder.glob("sweep/.submitit/*/*_log.*"))

    def wait(self) -> int:
        return self.process.wait(timeout=240)

    def until(self, seen: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not seen():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said + self.logs
            time.sleep(0.1)

    def until_saved(self, count: int = 1) -> None:
        """Until so many trainings have saved what they can go on from."""
        self.until(lambda: len(list(self.folder.glob("store/work/*/scratch/training.safetensors"))) >= count)

    def slurm(self, *command: str) -> str:
        answer = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    @property
    def array(self) -> str:
        found = re.search(r"scancel (\d+) ends", self.said)
        assert found is not None, self.said
        return found[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """SHA-256 of the weights."""
    folder = tmp_path_factory.mktemp("undisturbed")
    answer = segslim(*TRAINING, "store=store", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return _weights(folder)


def _weights(folder: Path) -> set[str]:
    manifests = [json.loads(file.read_text()) for file in folder.glob("store/artifacts/train-*/manifest.json")]
    return {manifest["files"]["weights.safetensors"] for manifest in manifests}


def test_a_job_at_its_time_limit_is_saved_and_queued_again_once_and_goes_on(environment, undisturbed, tmp_path):
    sweep = Sweep(*TRAINING, "store=store", cwd=tmp_path, environment=environment)
    sweep.until_saved()
    sweep.slurm("scancel", "--signal=USR2", sweep.array)  # what Slurm sends before the limit, to every process
    assert sweep.wait() == 0, sweep.said + sweep.logs
    assert "Restarts=1 " in sweep.slurm("scontrol", "show", "job", sweep.array)
    assert re.search(r"close to its time limit, hydra.launcher.timeout_min=10: training is saved at", sweep.logs)
    assert "Traceback" not in sweep.logs
    assert _weights(tmp_path) == undisturbed


def test_a_job_that_is_preempted_is_saved_and_goes_on(environment, undisturbed, tmp_path):
    sweep = Sweep(*TRAINING, "store=store", "hydra.launcher.partition=low", cwd=tmp_path, environment=environment)
    sweep.until_saved()
    sweep.slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
    assert sweep.wait() == 0, sweep.said + sweep.logs
    assert "Restarts=1 " in sweep.slurm("scontrol", "show", "job", sweep.array)
    assert "stopped by SIGTERM: training is saved at iteration" in sweep.logs
    assert _weights(tmp_path) == undisturbed
