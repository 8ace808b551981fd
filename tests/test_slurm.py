"""Sweeps on a real Slurm: jobs that Slurm ends go on, those of which one dies are waited for, and all is told."""

import json
import os
import re
import shlex
import signal
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
        work = Path(self.folder, "store", "work")
        self.until(lambda: len(list(work.glob("*/scratch/training.safetensors"))) >= count)

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


def test_a_job_that_ends_leaves_the_others_to_be_waited_for_and_its_limit_is_named(environment, tmp_path):
    """One is ended at its limit, which may not come again, one by somebody, and one does its work."""
    limit = ("hydra.launcher.max_num_timeout=0", "hydra.launcher.cpus_per_task=1", "train.iters=200", "num_workers=0")
    sweep = Sweep(*TRAINING, *limit, "seed=0,1,2", "store=store", cwd=tmp_path, environment=environment)
    sweep.until_saved(3)
    sweep.slurm("scancel", "--signal=USR2", f"{sweep.array}_0")
    sweep.slurm("scancel", f"{sweep.array}_1")
    assert sweep.wait() == 1
    assert re.search(
        r"job 0 failed: its time limit, hydra.launcher.timeout_min=10 minutes, .*max_num_timeout=0", sweep.said
    )
    assert re.search(rf"error: job 1 \({sweep.array}_1\) ended without a result, CANCELLED: its log is ", sweep.said)
    assert "1 of 3 jobs are not done (1 unfinished)" in sweep.said and "Traceback" not in sweep.said
    assert len(_weights(tmp_path)) == 1


def test_who_stops_the_sweep_is_told_how_to_end_its_jobs_and_to_look_at_them(environment, tmp_path):
    sweep = Sweep(*TRAINING, "train.iters=100000", "store=store", cwd=tmp_path, environment=environment)
    sweep.until_saved()
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    told = re.search(
        r"1 of 1 jobs go on \((scancel \d+) ends them; uv run python -m segslim report sweep looks", sweep.said
    )
    assert told is not None, sweep.said
    assert sweep.slurm("squeue", "--noheader", f"--jobs={sweep.array}")
    sweep.slurm(*told[1].split())


def test_a_host_that_does_not_see_the_store_or_the_sweeps_folder_is_named(environment, tmp_path):
    alone, on_two = environment["ALONE"], "+hydra.launcher.additional_parameters.nodelist=two"
    sweep = Sweep(*TRAINING, on_two, f"store={alone}/store", cwd=tmp_path, environment=environment)
    assert sweep.wait() == 1
    assert f"store={alone}/store: this job's host, " in sweep.said and "Traceback" not in sweep.said
    sweep = Sweep(
        *TRAINING, on_two, f"hydra.launcher.submitit_folder={alone}/%j", cwd=tmp_path, environment=environment
    )
    assert sweep.wait() == 1
    assert re.search(r"error: job 0 \(\d+\) ended without a result, FAILED: it has left no log in ", sweep.said)


def test_a_run_that_is_no_sweep_goes_on_by_the_documented_command(environment, undisturbed, tmp_path):
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    found = re.search(r"^sbatch (.*?) \\\n  '(srun .*)'$", page, re.MULTILINE)
    assert found is not None
    tiny = shlex.join([*TRAINING, "store=store"])
    typed = re.sub(r"run\.py compress=prune store=/shared/store", f"{ROOT / 'run.py'} {tiny}", found[2])
    typed = typed.replace(".venv/bin/python", sys.executable)
    options = shlex.split(found[1].replace("--cpus-per-task=8", "--cpus-per-task=1"))
    variables = {**os.environ, **environment}

    def slurm_says(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout

    job = slurm_says("sbatch", "--parsable", "--output=said.txt", "--open-mode=append", *options, typed).strip()
    waited_until = time.monotonic() + 200
    signalled = False
    while "JobState=COMPLETED" not in (state := slurm_says("scontrol", "show", "job", job)):
        assert "JobState=FAILED" not in state and time.monotonic() < waited_until, (tmp_path / "said.txt").read_text()
        if not signalled and list(Path(tmp_path, "store", "work").glob("*/scratch/training.safetensors")):
            slurm_says("scancel", "--signal=USR2", job)
            signalled = True
        time.sleep(0.2)
    assert "Restarts=1 " in state
    assert "stopped by SIGUSR2: training is saved at iteration" in (tmp_path / "said.txt").read_text()
    assert _weights(tmp_path) == undisturbed
