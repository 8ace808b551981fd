"""Each logger's numbers, read back by its own reader."""

import importlib.util

import pytest

from segslim.loggers.csv import CsvLogger
from segslim.loggers.tensorboard import TensorBoardLogger
from segslim.loggers.visualdl import VisualDlLogger

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

    from segslim.loggers.mlflow import MlflowLogger

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    _log(MlflowLogger(str(tmp_path / "run-1"), uri, "segslim"))
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("segslim").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == CURVE
    assert run.data.metrics["report/change/miou"] == -0.5
