"""Loggers: where a run's numbers go as they come. None by default, and no fingerprint depends on the choice.

`logger.writer` in the config names the class, one of these or your own; it is made with the run's folder as `folder`.
Each package is imported when its logger is made.
"""

import importlib.util
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from segslim.config import LoggerChoice
from segslim.errors import UserError
from segslim.pipeline.plan import Step
from segslim.pipeline.store import Artifact
from segslim.plugins import instantiate
from segslim.training.files import CURVE_FILE, read_curve

MLFLOW_SECONDS, MLFLOW_METRICS = 5.0, 500  # send after so long, or so many: a request a number would slow the training


class Logger(Protocol):
    """What a class that `logger.writer` names has to have."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Takes one number, with a tag like "retrain/loss" and the iteration that it belongs to."""

    def close(self) -> None:
        """Writes what is not written yet."""


class CsvLogger:
    """scalars.csv in the run's folder, one line `tag,step,value` a number: for a spreadsheet, pandas, or `tail -f`."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._stream = (Path(folder) / "scalars.csv").open("w", encoding="utf-8", buffering=1)
        self._stream.write("tag,step,value\n")

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._stream.write(f"{tag},{step},{value:.9g}\n")

    def close(self) -> None:
        self._stream.close()


class TensorBoardLogger:
    """Event files in `tensorboard/` in the run's folder: `tensorboard --logdir outputs` (or multirun) shows all runs.

    Written by tensorboardX, which needs no TensorFlow.
    """

    def __init__(self, folder: str) -> None:
        _require("tensorboard", "tensorboardX")
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(_empty_folder(Path(folder) / "tensorboard")), flush_secs=5)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self._writer.close()


class VisualDlLogger:
    """Records in `visualdl/` in the run's folder: `visualdl --logdir outputs`, as after PaddleSeg's --use_vdl.

    PaddleSeg has the package installed.
    """

    def __init__(self, folder: str) -> None:
        from visualdl import LogWriter

        self._writer = LogWriter(logdir=str(_empty_folder(Path(folder) / "visualdl")), flush_secs=5)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag=tag, value=value, step=step)

    def close(self) -> None:
        self._writer.close()


class MlflowLogger:
    """One MLflow run for each of ours, in `experiment` at `tracking_uri`: `mlflow ui`, or your tracking server.

    It is named and tagged by the folder that holds the report.
    """

    def __init__(self, folder: str, tracking_uri: str, experiment: str) -> None:
        _require("mlflow", "mlflow")
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # they log each step of making their database
        self._client, self._metric = MlflowClient(tracking_uri), Metric
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        run = self._client.create_run(experiment_id, tags={"folder": folder}, run_name=Path(folder).name)
        self._run = run.info.run_id
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._waiting.append(self._metric(tag, value, int(time.time() * 1000), step))
        if len(self._waiting) >= MLFLOW_METRICS or time.monotonic() - self._sent > MLFLOW_SECONDS:
            self._send()

    def close(self) -> None:
        self._send()
        self._client.set_terminated(self._run)

    def _send(self) -> None:
        self._client.log_batch(self._run, metrics=self._waiting)
        self._waiting, self._sent = [], time.monotonic()


def _empty_folder(folder: Path) -> Path:
    # each run writes all of its numbers, cached trainings included: an earlier log there would be drawn twice
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _require(logger: str, package: str) -> None:
    """Raises UserError, with the command that installs it, unless `package` is installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"logger={logger} needs {package}, which is not installed: uv sync --group {logger}")


@contextmanager
def with_logger(listener: Any, choice: LoggerChoice, folder: Path) -> Iterator[Any]:
    """Yields a listener that also logs to the chosen logger, or `listener` itself where none is chosen.

    Raises UserError when the logger cannot be made, for instance when its package is not installed.
    """
    if choice.writer is None:
        yield listener
        return
    logger = instantiate({**choice.writer, "folder": str(folder)}, "logger.writer")
    try:
        yield LoggingListener(listener, logger, choice.interval)
    finally:
        logger.close()


class LoggingListener:
    """A run listener that passes every event on to `listener`, and its numbers to `logger`.

    Tags are stage/number: "train/loss", "retrain/miou"; at the end "report/compressed/latency_ms/mean".
    """

    def __init__(self, listener: Any, logger: Logger, interval: int) -> None:
        self._listener, self._logger, self._interval = listener, logger, interval
        self._stage, self._logged = "", 0  # the last iteration of the stage that was logged

    def cached(self, step: Step, artifact: Artifact) -> None:
        self._begin(step)
        self._log_rest_of_curve(artifact)
        self._listener.cached(step, artifact)

    def waiting(self, step: Step, holder: str) -> None:
        self._listener.waiting(step, holder)

    def started(self, step: Step) -> None:
        self._begin(step)
        self._listener.started(step)

    def progress(self, what: str, done: int, total: int) -> None:
        self._listener.progress(what, done, total)

    def measured(self, iteration: int, numbers: Mapping[str, float]) -> None:
        self._logged = iteration
        for name, value in numbers.items():
            if name == "miou" or iteration % self._interval == 0:
                self._logger.scalar(f"{self._stage}/{name}", value, iteration)

    def finished(self, step: Step, artifact: Artifact) -> None:
        self._log_rest_of_curve(artifact)
        self._listener.finished(step, artifact)

    def warned(self, step: Step, warning: str) -> None:
        self._listener.warned(step, warning)

    def report(self, report: Mapping[str, Any], folder: Path) -> None:
        for part in ("baseline", "compressed", "change"):
            for tag, value in _numbers_in(f"report/{part}", report[part]):
                self._logger.scalar(tag, value, 0)
        self._listener.report(report, folder)

    def _begin(self, step: Step) -> None:
        self._stage, self._logged = step.label.replace(" ", "-"), 0

    def _log_rest_of_curve(self, artifact: Artifact) -> None:
        # a cached training, or the part of one that an earlier, killed run made
        for iteration, numbers in read_curve(artifact.path / CURVE_FILE):
            if iteration > self._logged:
                self.measured(iteration, numbers)


def _numbers_in(tag: str, node: Any) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _numbers_in(f"{tag}/{name}", child)
    elif isinstance(node, (int, float)):
        yield tag, float(node)
