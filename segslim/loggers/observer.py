"""Gives the numbers of a run to a logger, beside the observer that draws the run on the screen."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segslim.config import LoggerChoice
from segslim.instantiate import instantiate
from segslim.loggers import Logger
from segslim.pipeline.plan import Step
from segslim.pipeline.store import Artifact
from segslim.training.files import CURVE_FILE, read_curve


@contextmanager
def logged(observer: Any, choice: LoggerChoice, folder: Path) -> Iterator[Any]:
    """`observer` itself where no logger is chosen, else one that tells the chosen logger as well.

    Raises UserError when the logger cannot be made, as when its package is not installed.
    """
    if choice.writer is None:
        yield observer
        return
    logger = instantiate({**choice.writer, "folder": str(folder)}, "logger.writer")
    try:
        yield LoggedObserver(observer, logger, choice.interval)
    finally:
        logger.close()


class LoggedObserver:
    """Tags are stage/number: "train/loss", "retrain/miou"; at the end "report/compressed/latency_ms/mean"."""

    def __init__(self, observer: Any, logger: Logger, interval: int) -> None:
        self._observer, self._logger, self._interval = observer, logger, interval
        self._stage, self._told = "", 0

    def cached(self, step: Step, artifact: Artifact) -> None:
        self._begin(step)
        self._catch_up(artifact)
        self._observer.cached(step, artifact)

    def waiting(self, step: Step) -> None:
        self._observer.waiting(step)

    def started(self, step: Step) -> None:
        self._begin(step)
        self._observer.started(step)

    def progress(self, what: str, done: int, total: int) -> None:
        self._observer.progress(what, done, total)

    def measured(self, iteration: int, numbers: Mapping[str, float]) -> None:
        self._told = iteration
        for name, value in numbers.items():
            if name == "miou" or iteration % self._interval == 0:
                self._logger.scalar(f"{self._stage}/{name}", value, iteration)

    def finished(self, step: Step, artifact: Artifact) -> None:
        self._catch_up(artifact)
        self._observer.finished(step, artifact)

    def report(self, report: Mapping[str, Any], folder: Path) -> None:
        for part in ("baseline", "compressed", "change"):
            for tag, value in _figures(f"report/{part}", report[part]):
                self._logger.scalar(tag, value, 0)
        self._observer.report(report, folder)

    def _begin(self, step: Step) -> None:
        self._stage, self._told = step.label.replace(" ", "-"), 0

    def _catch_up(self, artifact: Artifact) -> None:
        for iteration, numbers in read_curve(artifact.path / CURVE_FILE):
            if iteration > self._told:
                self.measured(iteration, numbers)


def _figures(tag: str, node: Any) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _figures(f"{tag}/{name}", child)
    elif isinstance(node, (int, float)):
        yield tag, float(node)
