"""The exceptions that reach a user: what is wrong, where, and what to do, in one line; and that a run was stopped."""

import ctypes
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from segslim.streams import complain


class UserError(Exception):
    """A mistake of the user's, raised where it is known; the command prints it as one line and exits with code 2."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end, and it ended where the same command can go on; `reached` says where that is."""

    def __init__(self, number: int, reached: str = "what is finished is kept") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {reached}; the same command goes on from there")
        self.exit_code = 128 + number
        self.reached = reached


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command of `python -m segslim`: what it returns; one line, and 2 for what is no defect, 130 for Ctrl-C."""
    try:
        return command()
    except KeyboardInterrupt:
        complain("stopped by SIGINT")
        return 128 + signal.SIGINT
    except Exception as error:
        return complain_of(error)


def complain_of(error: Exception) -> int:
    """Says in one line what the user or the machine can put right, and returns exit code 2; raises what is a defect."""
    message = str(error) if isinstance(error, UserError) else refusal(error)
    if message is None:
        raise error
    complain(f"error: {message}")
    return 2


_UNWRITABLE = "cannot be written"
_REFUSALS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO), _UNWRITABLE),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOLCK, errno.ESTALE, errno.ENOTCONN), _UNWRITABLE),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), _UNWRITABLE),
    errno.EFBIG: f"{_UNWRITABLE}: raise the limit of ulimit -f",
    errno.EMFILE: "cannot be opened: raise the limit of ulimit -n",
    errno.ENFILE: "cannot be opened: the system has too many files open",
    errno.EAGAIN: "cannot be worked on: raise the limit of ulimit -u",
    errno.ENOMEM: "cannot be worked on: free some memory",
}


LONGEST_PATH = 260  # Windows' MAX_PATH, with the zero at its end


def refusal(error: Exception) -> str | None:
    """What the machine refuses and what can be done, in words; None where it is another error, maybe a defect."""
    if isinstance(error, MemoryError):
        return "there is not enough memory: free some"
    if "can't start new thread" in str(error):
        return "there can be no more threads or processes: raise the limit of ulimit -u"
    if not isinstance(error, OSError):
        return None
    if sys.platform == "win32" and len(str(error.filename)) >= LONGEST_PATH:
        remedy = "give a shorter store=FOLDER and hydra.run.dir=FOLDER, or set LongPathsEnabled in Windows' registry"
        return f"{error.filename}: the path has {len(str(error.filename))} letters, and Windows takes 259: {remedy}"
    if sys.platform == "win32" and error.errno == errno.EINVAL and error.filename:
        return f'{error.filename}: Windows takes no such name: leave out <>:"|?*, and con, prn, aux, nul, com1, lpt1'
    if error.errno not in _REFUSALS:
        return None
    return f"{error.filename or 'a file'}: {_REFUSALS[error.errno]} ({error.strerror})"


#: What asks a run to end; the third is what Slurm is asked to send before a time limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))
if sys.platform == "win32":
    KILL = signal.SIGTERM  # which nothing can handle there
else:
    KILL = signal.SIGKILL
AT_ONCE = 1.0  # seconds within which signals are one: Ctrl-C reaches a process from the terminal and from its parent


def end_by_signals(quietly: bool = False) -> None:
    """From now on a signal ends the process at once, with the shell's exit code and, unless `quietly`, in one line on
    its standard error.

    It raises no exception: in the midst of Paddle's calls back into Python that became errors of another kind, or a
    crash. What is finished is on the disk, and what is not is made again, as after any death (pipeline/store.py).
    """
    owner, screen = os.getpid(), os.dup(2)  # which may be turned to a log file meanwhile

    def end(number: int, frame: FrameType | None) -> None:
        stopped = Interrupted(number)
        if not quietly and os.getpid() == owner:  # a fork of it would say the same
            with suppress(OSError):  # nobody may read it
                os.write(screen, f"{stopped}\n".encode())
        os._exit(stopped.exit_code)

    for number in SIGNALS:
        signal.signal(number, end)


def end_with_parent(parent: int, number: int) -> None:
    """From now on the system sends signal `number` to this process when its parent, of that process id, has ended."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


@contextmanager
def deferred(then_end: bool = True) -> Iterator[Callable[[], int]]:
    """Yields a function that gives the number of the signal that came, or 0: who calls it ends at a place of its own.

    Another one, more than AT_ONCE later, does what it did before, so that an impatient user is not kept waiting; one
    that came too late to be asked for does so at the end, unless not `then_end`.
    """
    came: list[int] = []
    first: list[float] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        first.append(time.monotonic())
        if first[-1] - first[0] > AT_ONCE:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    with _handled_by(note):
        yield lambda: came[0] if came else 0
    if came and then_end:
        signal.raise_signal(came[0])


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
