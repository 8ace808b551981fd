"""Sweeps as a user types them: jobs share what they have in common, a failed one does not end the others, and each
launcher runs them.
"""

import csv
import json
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.command import ROOT, TINY, segslim

pytestmark = pytest.mark.slow

JOBS = ("-m", *TINY, "train.iters=2", "retrain.iters=1", "compress=prune_uniform", "compress.align=1")
SWEEP = "compress.ratio=0.2,7,0.4"  # the second job fails
KILLS = int(os.environ.get("SEGSLIM_TEST_KILLS", "2"))


def _reports(folder: Path, first: bool = False) -> dict[str, dict]:
    """By job number, those of the last sweep, or the first."""
    files = sorted(_sweeps(folder)[0 if first else -1].glob("*/report.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def _sweeps(folder: Path) -> list[Path]:
    return sorted((folder / "multirun").glob("*/*/"))


def _computed(reports: dict[str, dict]) -> list[str]:
    """The fingerprints that were made, once for each time that one was."""
    return [stage["fingerprint"] for report in reports.values() for stage in report["stages"] if not stage["cached"]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder, segslim(*JOBS, SWEEP, cwd=folder)


def test_jobs_share_what_they_have_in_common(swept):
    folder, _ = swept
    reports = _reports(folder)
    assert [round(report["change"]["flops"], 1) for report in reports.values()] == [-0.2, -0.4]
    cached = {stage["name"] for stage in reports["2"]["stages"] if stage["cached"]}
    assert {"data", "train", "score", "baseline export", "baseline evaluate"} <= cached
    assert len(_computed(reports)) == len(set(_computed(reports)))


def test_a_failed_job_ends_no_other_and_is_told_with_the_command_that_runs_it_alone(swept):
    folder, answer = swept
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
    (file,) = _sweeps(folder)[0].glob("*/failure.json")
    failure = json.loads(file.read_text())
    assert failure["error"].startswith("compress.ratio=7: ") and failure["traceback"] is None
    assert failure["error"] in answer.stdout and failure["command"] in answer.stdout
    uv, run, *command = shlex.split(failure["command"])
    assert (uv, run) == ("uv", "run")
    alone = subprocess.run(
        [sys.executable, ROOT / command[0], *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 2 and failure["error"] in alone.stderr


def test_a_sweep_ends_in_a_page_and_a_table_of_all_its_jobs(swept):
    folder, answer = swept
    sweep = min((folder / "multirun").glob("*/*/"), key=lambda path: path.stat().st_mtime)
    assert str((sweep / "sweep.html").relative_to(folder)) in answer.stdout
    rows = list(csv.DictReader((sweep / "sweep.csv").open(encoding="utf-8", newline="")))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    page = (sweep / "sweep.html").read_text(encoding="utf-8")
    assert "3 jobs: 2 done, 1 failed" in page
    assert len(set(re.findall(r'href="([^"#]+report\.html)', page))) == 2


def test_a_search_finds_the_best_within_its_bound_and_goes_on_after_a_trial_that_fails(swept):
    folder, _ = swept
    found, answer = _search(
        folder,
        "experiment=search_fastest",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.sampler.seed=1",  # which tries each
        "compress.ratio=choice(0.2,7,0.4)",
        "compress.align=1",
        "objective.figures=[change.flops]",
        "objective.bounds=[{figure: change.flops, at_least: -0.3}]",
    )
    assert found["best_params"] == {"compress.ratio": 0.2}
    assert answer.returncode == 1 and "compress.ratio=7: " in answer.stdout


def test_a_search_of_two_objectives_gives_a_front(swept):
    folder, _ = swept
    found, answer = _search(
        folder,
        "experiment=search_front",
        "compress.ratio=choice(0.2,0.4)",
        "compress.criterion=l1_norm",
        "compress.align=1",
        "hydra.sweeper.n_trials=2",
    )
    assert answer.returncode == 0, answer.stderr
    front = found["solutions"]
    assert front and all(set(solution["params"]) == {"compress.ratio"} for solution in front)
    reports = _reports(folder).values()
    measured = [[report["compressed"]["miou"], report["change"]["latency"]] for report in reports]
    assert all(solution["values"] in measured for solution in front)


def _search(folder, *options):
    answer = segslim(*JOBS, *options, cwd=folder)
    file = _sweeps(folder)[-1] / "optimization_results.yaml"
    assert file.exists(), answer.stderr
    return yaml.safe_load(file.read_text()), answer


def test_joblib_runs_jobs_side_by_side_and_nothing_twice(tmp_path):
    answer = segslim(*JOBS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "compress.ratio=0.2,0.4", cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    computed = _computed(_reports(tmp_path))
    assert len(computed) == len(set(computed)) == len(_fingerprints(tmp_path))


@pytest.mark.parametrize(
    "launcher",
    [["hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1"], ["hydra/launcher=ray"]],
    ids=["submitit_local", "ray"],
)
def test_launcher_runs_jobs_on_a_store_that_others_have_filled(launcher, swept, tmp_path):
    store, before = f"store={swept[0] / '.segslim'}", _fingerprints(swept[0])
    answer = segslim(*JOBS, *launcher, store, "compress.ratio=0.2,0.4", cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    reports = _reports(tmp_path)
    assert sorted(reports) == ["0", "1"]
    computed = _computed(reports)
    assert len(computed) == len(set(computed)) and not before & set(computed)


@pytest.mark.long
def test_what_jobs_side_by_side_have_timed_is_timed_again_alone(swept, tmp_path):
    options = (*JOBS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"store={swept[0] / '.segslim'}", "seed=0,1")
    for more, beside in (((), True), (("benchmark.when=end",), False)):
        answer = segslim(*options, "hydra.sweep.dir=sweep", *more, cwd=tmp_path)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        reports = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("sweep/*/report.json"))]
        assert [report["timed"]["beside"] for report in reports] == [beside, beside]
    assert "timing 2 of 2, alone: seed=1" in answer.stderr
    assert "2 jobs: 2 done" in (tmp_path / "sweep" / "sweep.html").read_text()


@pytest.mark.long
def test_a_ray_cluster_that_runs_runs_the_jobs(swept, tmp_path, monkeypatch):
    """Of two nodes of this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray, port = [sys.executable, "-m", "ray.scripts.scripts"], _free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # of a socket, whose path is to be short
    head = ["start", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        for options in (head, ["start", f"--address=127.0.0.1:{port}"]):
            started = subprocess.run([*ray, *options, "--num-cpus=1"], capture_output=True, text=True, check=False)
            assert started.returncode == 0, started.stdout + started.stderr
        launcher = ["hydra/launcher=ray", "+hydra.launcher.ray.remote.num_cpus=1"]
        launcher += [f"hydra.launcher.ray.init.address=127.0.0.1:{port}", f"store={swept[0] / '.segslim'}"]
        answer = segslim(*JOBS, *launcher, "compress.ratio=0.2,0.4", cwd=tmp_path)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert sorted(_reports(tmp_path)) == ["0", "1"]
    finally:
        _end_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _end_below(folder: Path) -> None:
    """Ends the processes of a Ray cluster: `ray stop` would end those of every one on this machine."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder) in (process / "cmdline").read_text():
                os.kill(int(process.name), signal.SIGKILL)


def test_two_sweeps_at_once_on_one_store_compute_every_fingerprint_once(tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), *JOBS, "compress.ratio=0.2,0.4", f"store={tmp_path / 'store'}"]
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, cwd=f, env=environment, stdout=subprocess.DEVNULL) for f in folders]
    assert [sweep.wait(timeout=500) for sweep in running] == [0, 0]
    computed = [fingerprint for folder in folders for fingerprint in _computed(_reports(folder))]
    assert len(computed) == len(set(computed)) == len(_fingerprints(tmp_path))
    first, second = (_reports(folder) for folder in folders)
    assert {job: report["compressed"] for job, report in first.items()} == {
        job: report["compressed"] for job, report in second.items()
    }


@pytest.mark.long
def test_a_sweep_killed_again_and_again_ends_as_an_undisturbed_one(swept, tmp_path, random_seed):
    folder, _ = swept
    expected = _figures(_reports(folder, first=True))
    draw, step = random.Random(random_seed), len(_fingerprints(folder)) // KILLS
    command = [sys.executable, str(ROOT / "run.py"), *JOBS, SWEEP]
    moments = []
    for _ in range(KILLS):
        sweep = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _until(len(_made(tmp_path)) + draw.randint(0, step), draw.uniform(0, 3), sweep, tmp_path)
        with suppress(ProcessLookupError):  # it has ended before
            os.killpg(sweep.pid, signal.SIGKILL)
        moments.append(f"{len(_made(tmp_path))} artifacts" + (" (ended before)" if sweep.wait() != -9 else ""))
    print("killed at", ", ".join(moments))
    answer = segslim(*JOBS, SWEEP, cwd=tmp_path)
    assert answer.returncode == 1 and "compress.ratio=7: " in answer.stdout  # the job that fails by itself
    assert _figures(_reports(tmp_path)) == expected


def _until(goal: int, moment: float, sweep: subprocess.Popen, folder: Path) -> None:
    """Waits until the sweep has made so many artifacts, and then a moment more, or until it has ended."""
    deadline = time.monotonic() + 300
    while len(_made(folder)) < goal and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        sweep.wait(timeout=moment)


def _made(folder: Path) -> list[Path]:
    return list(folder.glob(".segslim/artifacts/*"))


def _figures(reports: dict[str, dict]) -> dict[str, dict]:
    """All that is not a time."""
    timed = ("latency_ms", "session", "deployment")
    lanes = {job: [report[lane] for lane in ("baseline", "compressed")] for job, report in reports.items()}
    return {
        job: [{key: value for key, value in lane.items() if key not in timed} for lane in pair]
        for job, pair in lanes.items()
    }


def _fingerprints(folder: Path) -> set[str]:
    return {json.loads(file.read_text())["fingerprint"] for file in folder.rglob("artifacts/*/manifest.json")}
