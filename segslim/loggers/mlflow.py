"""MLflow: `mlflow ui` where the command was typed, or your tracking server."""

import logging
import time
from pathlib import Path
from typing import Any

from segslim.loggers.files import require

SECONDS, METRICS = 5.0, 500  # send after so long, or so many: a request for each number would hold up the training


class MlflowLogger:
    """One MLflow run for each of ours, in `experiment`; it is named and tagged by the folder that holds the report."""

    def __init__(self, folder: str, tracking_uri: str, experiment: str) -> None:
        require("mlflow", "mlflow", group="mlflow")
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # how it makes its database is no news
        self._client, self._metric = MlflowClient(tracking_uri), Metric
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        run = self._client.create_run(experiment_id, tags={"folder": folder}, run_name=Path(folder).name)
        self._run = run.info.run_id
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._waiting.append(self._metric(tag, value, int(time.time() * 1000), step))
        if len(self._waiting) >= METRICS or time.monotonic() - self._sent > SECONDS:
            self._send()

    def close(self) -> None:
        self._send()
        self._client.set_terminated(self._run)

    def _send(self) -> None:
        self._client.log_batch(self._run, metrics=self._waiting)
        self._waiting, self._sent = [], time.monotonic()
