"""SIGTERM and Ctrl-C end a run where the same command can go on, and in one line."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from segslim.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it a signal ends the process at once, in one line on its standard error and with the shell's exit code.

    It raises no exception: in the midst of Paddle's calls back into Python that became errors of another kind, or a
    crash. What is finished is on the disk, and what is not is made anew, as after any death (pipeline/store.py).
    """
    screen = os.dup(2)  # which may be turned to a log file meanwhile

    def end(number: int, frame: FrameType | None) -> None:
        stopped = Interrupted(number)
        os.write(screen, f"{stopped}\n".encode())
        os._exit(stopped.exit_code)

    try:
        with _handled_by(end):
            yield
    finally:
        os.close(screen)


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Yields a function that gives the number of the signal that came, or 0: who calls it ends at a place of its own.

    A second signal does what it did before, so that an impatient user is not kept waiting.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    with _handled_by(note):
        yield lambda: came[0] if came else 0


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers there
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
