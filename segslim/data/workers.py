"""Applies a function to items ahead of their use, by processes, in the items' order.

Not `paddle.io.DataLoader`: there a worker's exception reaches the caller as a broken queue instead of as itself, and at
`num_workers=0` a thread runs the transforms, whose global random generators the training loop shares.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2

from segslim.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """`map(function, items)`, by `num_workers` forked processes (0: by this one), each one result ahead.

    An exception of the function is raised here. The processes end with the iterator, and with this process, whose death
    breaks the pipes that they write to. Raises `UserError` when a process is killed.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    listed = list(items)
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for first in range(min(num_workers, len(listed))):
            workers.append(_start(function, listed[first::num_workers], [results for _, results in workers]))
        for position in range(len(listed)):
            yield _result(*workers[position % num_workers])
    finally:
        for process, results in workers:
            # Not `terminate`: they ignore SIGTERM.
            process.kill()
            process.join()
            results.close()


def _start(
    function: Callable[[Any], Any], items: Sequence[Any], siblings: Sequence[Connection]
) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("fork")
    results, sending = context.Pipe(duplex=False)
    # A pipe breaks only when no process holds its reading end any more: a worker must drop those it inherits.
    process = context.Process(target=_work, args=(function, items, sending, [results, *siblings]), daemon=True)
    process.start()
    sending.close()
    return process, results


def _work(
    function: Callable[[Any], Any], items: Sequence[Any], sending: Connection, inherited: Sequence[Connection]
) -> None:
    for connection in inherited:
        connection.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # these may reach the whole group; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # OpenCV's own threads did not survive the fork, and waiting for them would never end
    with suppress(BrokenPipeError):
        for item in items:
            try:
                outcome = (function(item), None)
            except Exception as error:
                sending.send((None, error))
                return
            sending.send(outcome)


def _result(process: BaseProcess, results: Connection) -> Any:
    try:
        result, error = results.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"a data-loading process ended with code {process.exitcode} (-9: killed, often for want of memory): "
            "lower num_workers or the batch size"
        ) from None
    if error is not None:
        raise error
    return result
