"""Predicts many images: reading ahead and writing behind the engine, with a bar on a terminal."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segslim.errors import UserError
from segslim.predict.images import Job, read_image, write_results
from segslim.predict.predictor import Predictor, Prepared
from segslim.predict.wording import printable

HELPERS = 2  # threads that read and write while the engine runs
AHEAD = 4  # images in memory on either side of it

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """How many images were predicted and how many could not be; seconds in all and in the engine alone."""

    predicted: int
    skipped: int
    seconds: float
    engine_seconds: float


def predict_all(predictor: Predictor, jobs: Sequence[Job], console: Console) -> Outcome:
    """Writes the results of every job; names each image that cannot be predicted on `console`, and goes on.

    Raises UserError when results cannot be written.
    """
    skipped, engine_seconds, started = 0, 0.0, time.perf_counter()
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(HELPERS) as pool, _bar(console) as bar:
        task = bar.add_task("predicting", total=len(jobs))
        for job, loaded in _ahead(pool, lambda job: _load(predictor, job), jobs):
            try:
                image, prepared = loaded.result()
                before = time.perf_counter()
                ids = predictor.run(prepared)
                engine_seconds += time.perf_counter() - before
                writing.append(pool.submit(write_results, job, image, ids, predictor.deployment.colours))
            except UserError as error:
                skipped += 1
                console.print(
                    printable(f"skipped: {job.image}: {error}"),
                    style="yellow",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            while len(writing) > AHEAD:
                writing.popleft().result()
            bar.advance(task)
        for written in writing:
            written.result()
    return Outcome(len(jobs) - skipped, skipped, time.perf_counter() - started, engine_seconds)


def _load(predictor: Predictor, job: Job) -> tuple[NDArray[np.uint8], Prepared]:
    image = read_image(job.image)
    return image, predictor.prepare(image)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with the future of `function(item)`, of which `AHEAD` are under way."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(32), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
