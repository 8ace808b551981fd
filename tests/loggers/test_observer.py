"""What a logger is told of a run whose stages train, are cached, or go on after a kill."""

import sys
from types import SimpleNamespace

import pytest

from segslim.errors import UserError
from segslim.loggers.csv import CsvLogger
from segslim.loggers.observer import LoggedObserver
from segslim.loggers.tensorboard import TensorBoardLogger
from segslim.pipeline.plan import plan
from segslim.reporting.report import WANTED
from segslim.stages import STAGES
from segslim.stages.strategy import unroll
from segslim.training.curve import CurveWriter
from tests.command import config
from tests.pipeline.toy import Silent

NUMBERS = {"loss": 0.5, "learning_rate": 0.1}
RETRAIN = SimpleNamespace(label="retrain 2")
REPORT = {
    "strategy": "prune",
    "baseline": {"miou": 0.5, "class_iou": [0.4, 0.6], "latency_ms": {"mean": 8.0}, "engine": "openvino"},
    "compressed": {"miou": 0.25, "class_iou": None, "latency_ms": None, "engine": "openvino"},
    "change": {"miou": -0.25},
}


class Screen(Silent):
    def report(self, report, folder):
        self.heard.append(("report", str(folder)))


@pytest.fixture
def scene(tmp_path):
    screen = Screen()
    observer = LoggedObserver(screen, CsvLogger(str(tmp_path / "run")), interval=2)
    return SimpleNamespace(screen=screen, observer=observer, folder=tmp_path, log=tmp_path / "run" / "scalars.csv")


def _lines(scene):
    return scene.log.read_text().splitlines()[1:]


def _artifact(scene, iterations):
    (scene.folder / "artifact").mkdir()
    curve = CurveWriter(scene.folder / "artifact" / "curve.csv", lambda iteration, numbers: None)
    for iteration in iterations:
        curve.add(iteration, NUMBERS)
    curve.close()
    return SimpleNamespace(path=scene.folder / "artifact", manifest={"result": "", "seconds": 1.0})


def test_numbers_are_logged_every_interval_and_evaluations_always(scene):
    scene.observer.started(RETRAIN)
    for iteration in (1, 2, 3):
        scene.observer.measured(iteration, NUMBERS)
    scene.observer.measured(5, {**NUMBERS, "miou": 0.75})
    assert _lines(scene) == ["retrain-2/loss,2,0.5", "retrain-2/learning_rate,2,0.1", "retrain-2/miou,5,0.75"]


def test_the_curve_of_a_cached_training_is_logged_too(scene):
    scene.observer.cached(RETRAIN, _artifact(scene, range(1, 6)))
    assert [line for line in _lines(scene) if "loss" in line] == ["retrain-2/loss,2,0.5", "retrain-2/loss,4,0.5"]


def test_what_was_logged_on_the_way_is_not_logged_again_at_the_end(scene):
    scene.observer.started(RETRAIN)
    for iteration in range(1, 5):
        scene.observer.measured(iteration, NUMBERS)
    scene.observer.finished(RETRAIN, _artifact(scene, range(1, 5)))
    assert [line for line in _lines(scene) if "loss" in line] == ["retrain-2/loss,2,0.5", "retrain-2/loss,4,0.5"]


def test_the_reports_figures_are_logged_at_the_end(scene):
    scene.observer.report(REPORT, scene.folder)
    assert _lines(scene) == [
        "report/baseline/miou,0,0.5",
        "report/baseline/latency_ms/mean,0,8",
        "report/compressed/miou,0,0.25",
        "report/change/miou,0,-0.25",
    ]


def test_the_screen_is_told_all_that_happens(scene):
    artifact = _artifact(scene, [])
    scene.observer.waiting(RETRAIN)
    scene.observer.started(RETRAIN)
    scene.observer.progress("loss 0.5", 1, 2)
    scene.observer.finished(RETRAIN, artifact)
    scene.observer.cached(RETRAIN, artifact)
    scene.observer.report(REPORT, scene.folder)
    assert [what for what, _ in scene.screen.heard] == [
        "waiting",
        "started",
        "progress",
        "finished",
        "cached",
        "report",
    ]


def test_a_logger_is_no_part_of_any_fingerprint():
    def fingerprints(*overrides):
        return [step.fingerprint for step in plan(unroll(config("compress=prune", *overrides)), STAGES, WANTED).steps]

    assert fingerprints("logger=csv", "logger.interval=3") == fingerprints() != fingerprints("seed=1")


def test_a_logger_that_is_not_installed_is_one_line_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="needs tensorboardX, which is not installed: uv sync --group tensorboard"):
        TensorBoardLogger(str(tmp_path))
