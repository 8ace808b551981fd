"""Each logger's numbers, read back by its own reader; and what reaches it of a run that trains, reuses or goes on."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from segslim.config import validate
from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.reporting.loggers import CsvLogger, LoggingListener, MlflowLogger, TensorBoardLogger, VisualDlLogger
from segslim.reporting.report import WANTED
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from segslim.training.files import CurveWriter
from tests.command import ROOT
from tests.pipeline.toy import Silent

CURVE = [(10, 0.5), (20, 0.25), (30, 0.125)]


def _log(logger):
    for step, value in CURVE:
        logger.scalar("train/loss", value, step)
    logger.scalar("report/change/miou", -0.5, 0)
    logger.close()


def test_csv_is_a_line_a_number(tmp_path):
    _log(CsvLogger(str(tmp_path / "run")))
    lines = (tmp_path / "run" / "scalars.csv").read_text().splitlines()
    assert lines[:2] == ["tag,step,value", "train/loss,10,0.5"] and lines[-1] == "report/change/miou,0,-0.5"


@pytest.mark.skipif(not importlib.util.find_spec("tensorboardX"), reason="uv sync --group tensorboard")
def test_tensorboard_events_hold_the_numbers_once_however_often_they_are_written(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    for _ in range(2):
        _log(TensorBoardLogger(str(tmp_path)))
    (file,) = (tmp_path / "tensorboard").iterdir()
    events, content = [], file.read_bytes()
    while content:  # TFRecord: length in 8 bytes, its checksum in 4, the event, its checksum in 4
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    found = [(v.tag, event.step, v.simple_value) for event in events for v in event.summary.value]
    assert found == [*(("train/loss", step, value) for step, value in CURVE), ("report/change/miou", 0, -0.5)]


def test_visualdl_records_hold_the_numbers_once_however_often_they_are_written(tmp_path):
    from visualdl import LogReader

    for _ in range(2):
        _log(VisualDlLogger(str(tmp_path)))
    (file,) = (tmp_path / "visualdl").iterdir()
    reader = LogReader(file_path=str(file))
    assert [(point.id, point.value) for point in reader.get_data("scalar", "train/loss")] == CURVE
    assert [point.value for point in reader.get_data("scalar", "report/change/miou")] == [-0.5]


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="uv sync --group mlflow")
def test_mlflow_run_holds_the_numbers_and_is_finished(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    _log(MlflowLogger(str(tmp_path / "run-1"), uri, "segslim"))
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("segslim").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == CURVE
    assert run.data.metrics["report/change/miou"] == -0.5


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
    listener = LoggingListener(screen, CsvLogger(str(tmp_path / "run")), interval=2)
    return SimpleNamespace(screen=screen, listener=listener, folder=tmp_path, log=tmp_path / "run" / "scalars.csv")


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
    scene.listener.started(RETRAIN)
    for iteration in (1, 2, 3):
        scene.listener.measured(iteration, NUMBERS)
    scene.listener.measured(5, {**NUMBERS, "miou": 0.75})
    assert _lines(scene) == ["retrain-2/loss,2,0.5", "retrain-2/learning_rate,2,0.1", "retrain-2/miou,5,0.75"]


def test_the_curve_of_a_cached_training_is_logged_too(scene):
    scene.listener.cached(RETRAIN, _artifact(scene, range(1, 6)))
    assert [line for line in _lines(scene) if "loss" in line] == ["retrain-2/loss,2,0.5", "retrain-2/loss,4,0.5"]


def test_what_was_logged_on_the_way_is_not_logged_again_at_the_end(scene):
    scene.listener.started(RETRAIN)
    for iteration in range(1, 5):
        scene.listener.measured(iteration, NUMBERS)
    scene.listener.finished(RETRAIN, _artifact(scene, range(1, 5)))
    assert [line for line in _lines(scene) if "loss" in line] == ["retrain-2/loss,2,0.5", "retrain-2/loss,4,0.5"]


def test_the_reports_figures_are_logged_at_the_end(scene):
    scene.listener.report(REPORT, scene.folder)
    assert _lines(scene) == [
        "report/baseline/miou,0,0.5",
        "report/baseline/latency_ms/mean,0,8",
        "report/compressed/miou,0,0.25",
        "report/change/miou,0,-0.25",
    ]


def test_every_event_reaches_the_screen_too(scene):
    artifact = _artifact(scene, [])
    scene.listener.waiting(RETRAIN, "process 3 on a host")
    scene.listener.started(RETRAIN)
    scene.listener.progress("loss 0.5", 1, 2)
    scene.listener.finished(RETRAIN, artifact)
    scene.listener.cached(RETRAIN, artifact)
    scene.listener.report(REPORT, scene.folder)
    events = [event for event, _ in scene.screen.heard]
    assert events == ["waiting", "started", "progress", "finished", "cached", "report"]


def test_a_logger_is_no_part_of_any_fingerprint():
    def fingerprints(*overrides):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = validate(compose("config", ["compress=prune", *overrides]))
        return [step.fingerprint for step in plan(resolve(config), STAGES, WANTED).steps]

    assert fingerprints("logger=csv", "logger.interval=3") == fingerprints() != fingerprints("seed=1")


def test_a_logger_that_is_not_installed_is_one_line_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"tensorboardX.*uv sync --group tensorboard"):
        TensorBoardLogger(str(tmp_path))
