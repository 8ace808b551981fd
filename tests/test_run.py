"""The whole length of the product, by the command that a user types, on a data set of a few tiny images."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.command import ROOT, TINY, last_report, poison, segslim
from tests.reporting.reader import Reader, external

pytestmark = pytest.mark.slow

RUN = (
    *TINY,
    "train.iters=6",
    "train.save_interval=2",
    "retrain.iters=3",
    "compress=prune",
    "compress.ratio=0.2",
    "compress.allocation=equal_loss",
    "compress.analysis.images=2",
    "compress.analysis.ratios=[0.3,0.6]",
    "engine=auto",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    answer = segslim(*RUN, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return folder, answer


def test_the_first_run_prunes_and_reports_what_was_measured(run):
    folder, answer = run
    report = last_report(folder)
    assert report["strategy"] == "prune" and not any(stage["cached"] for stage in report["stages"])
    assert report["change"]["flops"] == pytest.approx(-0.2, abs=0.01)
    assert report["change"]["params"] < 0 and report["change"]["size"] < 0
    for measured in (report["baseline"], report["compressed"]):
        assert 0 <= measured["miou"] <= 1 and measured["latency_ms"]["mean"] > 0
    assert "seed 0" in answer.stdout and "mIoU" in answer.stdout


def test_the_page_of_a_run_shows_what_it_did_and_needs_nothing_beside_it(run):
    folder, answer = run
    first = min((folder / "outputs").rglob("report.html"), key=lambda file: file.stat().st_mtime)
    page = first.read_text(encoding="utf-8")
    report = json.loads((first.parent / "report.json").read_text())
    assert not external(page) and str(first.relative_to(folder)) in answer.stdout
    text = Reader(page).text
    for lane in ("baseline", "compressed"):
        assert f"{report[lane]['miou']:.4f}" in text and f"{report[lane]['latency_ms']['mean']:.2f} ms" in text
    assert "compress=prune" in text and all(stage["fingerprint"][:12] in text for stage in report["stages"])
    assert page.count("data:image/") == 4 * 5 + 1  # four images in five pictures, and the sheet of samples


def test_the_screen_shows_the_stages_and_the_log_file_the_libraries(run):
    folder, answer = run
    step = re.compile(r"  +(\d+)/(\d+) [a-z, ]+ [\d.]+ s  ")  # without how far a stage is, which a slow machine says
    steps = [found.groups() for line in answer.stdout.splitlines() if (found := step.match(line))]
    count = len(last_report(folder)["stages"])
    assert steps == [(str(number), str(count)) for number in range(1, count + 1)]
    assert "ranking channels" in answer.stdout and "choosing the engine, baseline" in answer.stdout
    assert "paddle" not in answer.stderr.lower()
    assert list((folder / "outputs").rglob("run.log"))


def test_the_same_command_again_does_no_work_and_needs_no_paddle(run, tmp_path):
    folder, _ = run
    before = last_report(folder)
    again = segslim(*RUN, cwd=folder, without_paddle=poison(tmp_path), without_asserts=True)
    assert again.returncode == 0, again.stderr
    after = last_report(folder)
    assert all(stage["cached"] for stage in after["stages"])
    assert (after["baseline"], after["compressed"]) == (before["baseline"], before["compressed"])


def test_another_ratio_reuses_training_and_analysis(run):
    folder, _ = run
    answer = segslim(*RUN, "compress.ratio=0.5", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    report = last_report(folder)
    cached = {stage["name"] for stage in report["stages"] if stage["cached"]}
    assert cached == {"data", "train", "score", "analyze", "baseline export", "baseline select", "baseline evaluate"}
    assert report["change"]["flops"] == pytest.approx(-0.5, abs=0.01)


def test_a_killed_run_ends_with_the_same_weights_as_an_undisturbed_one(run, tmp_path):
    folder, _ = run
    command = [sys.executable, str(ROOT / "run.py"), *RUN]
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / ".segslim" / "work").glob("*/scratch/*")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # until training has saved what it can go on from
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    answer = segslim(*RUN, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    resumed = list((tmp_path / ".segslim" / "artifacts").glob("*/weights.safetensors"))
    assert {path.parent.name.split("-")[0] for path in resumed} == {"train", "prune", "reconstruct", "retrain"}
    undisturbed = folder / ".segslim" / "artifacts"
    assert all(path.read_bytes() == (undisturbed / path.parent.name / path.name).read_bytes() for path in resumed)


@pytest.mark.long
def test_two_processes_distil_what_one_has_trained(run):
    """Their number is no part of what a training is, so nothing before is made again."""
    folder, _ = run
    answer = segslim(*RUN, "train.processes=2", "retrain.distill.kind=channel_wise", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    cached = {stage["name"]: stage["cached"] for stage in last_report(folder)["stages"]}
    assert cached["train"] and cached["prune"] and not cached["retrain"]
    retrained = max((folder / ".segslim").rglob("retrain-*/curve.csv"), key=lambda file: file.stat().st_mtime)
    assert [line.split(",")[0] for line in retrained.read_text().splitlines()] == ["iteration", "1", "2", "3"]


def test_given_weights_are_used_instead_of_training(run):
    folder, _ = run
    trained = next((folder / ".segslim" / "artifacts").glob("train-*"))
    options = [option for option in RUN if not option.startswith("compress")]
    answer = segslim(*options, f"train.checkpoint={trained}", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    assert last_report(folder)["baseline"]["miou"] == last_report(folder)["compressed"]["miou"]
    assert f"weights of {trained}" in answer.stdout


def test_weights_of_another_network_are_named_in_one_line(run):
    folder, _ = run
    trained = next((folder / ".segslim" / "artifacts").glob("train-*"))
    words = [word for word in RUN if "model" not in word]
    answer = segslim("model=unet", *words, f"train.checkpoint={trained}", cwd=folder)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert "does not fit the network" in answer.stderr and "is missing; and " in answer.stderr


def test_a_loss_that_turns_nan_names_the_iteration_and_leaves_nothing(tmp_path):
    answer = segslim(*RUN, "train.learning_rate=1e20", cwd=tmp_path)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert "iteration" in answer.stderr and "learning_rate" in answer.stderr
    assert {path.name.split("-")[0] for path in (tmp_path / ".segslim" / "artifacts").iterdir()} == {"data"}


def test_a_sweep_trains_and_analyses_once(run):
    folder, _ = run
    answer = segslim("-m", *RUN, "compress.ratio=0.2,0.5", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    reports = [json.loads(file.read_text()) for file in sorted((folder / "multirun").rglob("report.json"))]
    assert len(reports) == 2
    assert [round(report["change"]["flops"], 1) for report in reports] == [-0.2, -0.5]
    assert all(stage["cached"] for report in reports for stage in report["stages"])
