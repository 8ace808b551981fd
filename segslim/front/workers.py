"""The points' work side by side, each in a process with cores of its own."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segslim.config import Config
from segslim.errors import UserError, end_by_signals, end_with_parent
from segslim.hardware import core_numbers, cores, keep_to
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store, in_use
from segslim.reporting.report import WANTED
from segslim.stages import stages_for
from segslim.stages.strategy import resolve

log = logging.getLogger(__name__)

#: Points that are made side by side at most: each keeps the activations of all its images.
MOST_WORKERS = 4
#: Takes jobs, each some configs, and gives why each config failed, or None.
Make = Callable[[Sequence[Sequence[Config]]], list[list[str | None]]]


class Silent:
    """A listener that tells nothing."""

    def cached(self, *_: Any) -> None: ...
    def waiting(self, *_: Any) -> None: ...
    def started(self, *_: Any) -> None: ...
    def progress(self, *_: Any) -> None: ...
    def measured(self, *_: Any) -> None: ...
    def finished(self, *_: Any) -> None: ...
    def warned(self, *_: Any) -> None: ...


def worker_count() -> int:
    return min(cores(), MOST_WORKERS)


@contextmanager
def workers() -> Iterator[Make]:
    """Yields what makes jobs side by side, each in a process with cores of its own, up to the deployed file; it gives,
    of every config of each, why it failed, or None.
    """
    count, context = worker_count(), multiprocessing.get_context("spawn")
    try:
        own = context.Queue() if count > 1 else None
    except OSError as error:  # semaphores are files in /dev/shm, which small containers do not have
        log.warning("points are made one after the other: there are no semaphores (%s); is there a /dev/shm?", error)
        own = None
    if own is None:
        yield lambda jobs: [_make(job) for job in jobs]
        return
    pools: list[ProcessPoolExecutor] = []

    def started() -> ProcessPoolExecutor:
        available = core_numbers()
        for number in range(count):
            own.put(available[number::count])
        pools.append(ProcessPoolExecutor(count, context, _begin_worker, (own, os.getpid())))
        return pools[-1]

    def make(jobs: Sequence[Sequence[Config]]) -> list[list[str | None]]:
        pool = pools[-1] if pools else started()
        futures = [pool.submit(_make, job) for job in jobs]
        errors: list[list[str | None]] = []
        for job, future in zip(jobs, futures, strict=True):
            try:
                errors.append(future.result())
            except BrokenProcessPool:  # out of memory, or a library crashed; the points beside it are lost, too
                errors.append(["its process was killed; is there enough memory?" for _ in job])
                pools.clear()
        return errors

    try:
        yield make
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _begin_worker(own: Any, parent: int) -> None:
    end_by_signals(quietly=True)
    end_with_parent(parent, signal.SIGTERM)
    mine = own.get()
    if mine:
        keep_to(mine)


def _make(job: Sequence[Config]) -> list[str | None]:
    """Each config's plan up to the deployed file."""
    errors: list[str | None] = []
    for config in job:
        try:
            steps = plan(resolve(config), stages_for(config), WANTED)
            store = Store(Path(config.store))
            with in_use(store.root, (step.fingerprint for step in steps.steps)):
                run(steps, store, Silent(), until="export")
            errors.append(None)
        except UserError as error:
            errors.append(str(error))
        except Exception as error:
            log.exception("a point of the front")
            errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return errors
