"""Starts the processes of a training, listens to them, and ends them all when one ends.

Nothing here knows what a job is: it is passed on as plain values.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import wait
from typing import Any

from segslim.child_process import parents_pipe, start_child
from segslim.errors import KILL, SIGNALS, Interrupted, UserError, end_with_parent
from segslim.hardware import cores
from segslim.paddle_compat import import_paddle
from segslim.training.process_group import ProcessGroup, join_process_group

WORTH_IT = 5_000_000  # pixels: starting processes takes as long as training Fast-SCNN on so many
TICK = 0.2  # seconds between two looks at the processes or for a job
GRACE = 1.0  # seconds to wait for more messages after a failure: the first one to arrive need not be the cause

Send = Callable[[str, Any], None]
"""Called as send(kind, content), with what pickle takes; the process that started the training receives it."""


def count_processes(requested: int | str, device: str, batch_size: int, pixels: int) -> int:
    """Returns how many processes train.

    Args:
        requested: their number, or "auto": the most that divide `batch_size` and have a GPU, or a CPU core, each.
        device: "cpu" or "gpu".
        batch_size: images of a whole batch.
        pixels: of all images of all iterations. On the CPU "auto" is 1 for less than WORTH_IT.
    """
    if requested != "auto":
        return int(requested)
    if device == "cpu":
        available = cores() if pixels >= WORTH_IT else 1
    else:
        available = import_paddle().device.cuda.device_count()
    return max(count for count in range(1, max(available, 1) + 1) if batch_size % count == 0)


@dataclass
class Member:
    """One of those that take part in a training, as seen from here: a process of this host, or another host's run."""

    name: str  # "process 1 of 2"
    connection: Any  # recv() gives its next message, (kind, content)
    process: subprocess.Popen[bytes] | None = None  # where it is one of this host
    ending: tuple[str, Any] = ("", None)  # its last message: "result", "stopped", "error", "defect" or "killed"
    closed: bool = False  # whether its connection is

    @property
    def has_failed(self) -> bool:
        return self.ending[0] != "result" and (self.ending[0] != "" or self.how_it_ended is not None)

    @property
    def how_it_ended(self) -> str | None:
        """In words, where it ended without a message; None where it has not."""
        if self.ending[0]:
            return str(self.ending[1]) if self.ending[0] == "killed" else None
        if self.process is None:
            return "has ended, or cannot be reached" if self.closed else None
        code = self.process.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def run_processes(
    command: Sequence[str],
    size: int,
    job: Mapping[str, Any],
    device: str,
    on_message: Callable[[str, Any], None],
    stop: Callable[[], int] = lambda: 0,
) -> Any:
    """Runs `command` as the processes of a group, and returns what process 0 returned.

    No process is left behind, nor outlives this one. What process 0 logs is logged here.

    Args:
        command: a Python program that calls `run_worker`; the number of a pipe is added to its arguments.
        size: how many processes.
        job: passed to each process.
        device: "cpu" or "gpu".
        on_message: called with (kind, content) that processes send on the way.
        stop: asked regularly; once it returns a signal's number, process 0 gets the signal.

    Raises UserError or Interrupted when a process raised it, UserError when one was killed, RuntimeError with the
    traceback of any other exception.
    """
    with ExitStack() as stack:
        free = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(size)]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in free]
    with ExitStack() as stack:
        started = (start(command, job, device, rank, addresses) for rank in range(size))
        return supervise([stack.enter_context(member) for member in started], on_message, stop)


def supervise(
    members: Sequence[Member],
    on_message: Callable[[str, Any], None],
    stop: Callable[[], int] = lambda: 0,
    grace: float = GRACE,
) -> Any:
    """Returns what the first member returned, and raises what `run_processes` does where one of them fails before.

    grace: seconds to wait for the cause after an exception, which may be what a process makes of another's absence.
    """
    open_ones: dict[Any, Member] = {member.connection: member for member in members}
    failed_at, stopped = float("inf"), 0
    while open_ones and time.monotonic() < failed_at + (GRACE if any(map(_is_cause, members)) else grace):
        ready: Any = wait(list(open_ones), TICK)
        for connection in ready:
            member = open_ones[connection]
            try:
                kind, content = connection.recv()
            except (EOFError, OSError, ValueError):  # closed, perhaps within a message
                member.closed = True
                del open_ones[connection]
                continue
            if kind in ("result", "stopped", "error", "defect", "killed"):
                member.ending = kind, content
            elif kind == "log":
                logger = logging.getLogger(content.name)
                if logger.isEnabledFor(content.levelno):
                    logger.handle(content)
            else:
                on_message(kind, content)
        if members[0].ending[0] == "result":
            return members[0].ending[1]
        if failed_at < float("inf"):
            continue
        stopped = stop()
        if any(member.has_failed for member in members):
            failed_at = time.monotonic()
        elif stopped:  # again and again, since a process that has just started ignores it
            assert members[0].process is not None  # who supervises has started it
            members[0].process.send_signal(stopped)
    for member in members:
        if member.process is not None:
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(0.1)  # one whose connection is closed is about to end
    raise _cause(members, stopped)


def _is_cause(member: Member) -> bool:
    """Whether it ended by itself: an exception may be what it makes of the absence of another."""
    return member.ending[0] in ("error", "stopped") or member.how_it_ended is not None


def _cause(members: Sequence[Member], stopped: int) -> BaseException:
    """Why the training ended: what a process says of itself counts before what others notice of its absence."""
    endings = [member.ending for member in members]
    for kind, content in endings:
        if kind == "error":
            return UserError(content)
    for kind, content in endings:
        if kind == "stopped":
            return Interrupted(*content)
    if stopped:
        return Interrupted(stopped)
    for member in members:
        if member.how_it_ended is not None:
            return UserError(
                f"training: {member.name} {member.how_it_ended}: the same command goes on from the last saved"
                " iteration; if memory was short, give fewer processes (train.processes=1) or smaller batches"
            )
    name, trace = next((member.name, member.ending[1]) for member in members if member.ending[0] == "defect")
    return RuntimeError(f"training: {name} failed:\n{trace}")


@contextmanager
def start(
    command: Sequence[str],
    job: Mapping[str, Any],
    device: str,
    rank: int,
    addresses: Sequence[str],
) -> Iterator[Member]:
    """One process of a group, which ends with the context.

    Args:
        command, job, device: as of `run_processes`.
        rank: of this process.
        addresses: HOST:PORT of every process, by rank; that of the first has to be free.
    """
    environment = _environment(device, rank, addresses)
    process, ours = start_child(command, environment, own_group=True)  # Ctrl-C is for us, who then stop the training
    try:
        with suppress(OSError):  # it has ended already, and is reported like any other that has
            ours.send({**job, "device": device, "parent": os.getpid()})
        yield Member(f"process {rank} of {len(addresses)}", ours, process)
    finally:
        process.kill()
        process.wait()
        ours.close()


def _environment(device: str, rank: int, addresses: Sequence[str]) -> dict[str, str]:
    environment = {
        **os.environ,
        "PADDLE_PG_TIMEOUT": str(10**9),  # milliseconds: the others wait while process 0 evaluates
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    for key in ("MASTER_ADDR", "PADDLE_MASTER"):  # they would count before the address of process 0
        environment.pop(key, None)
    if device == "cpu":
        environment |= {"PADDLE_DISTRI_BACKEND": "gloo", "OMP_NUM_THREADS": "1"}
    if "PADDLE_LOCAL_RANK" not in environment:  # otherwise Paddle's launcher has said which
        environment["FLAGS_selected_gpus"] = str(rank)
    return environment | {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(addresses)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
        "PADDLE_CURRENT_ENDPOINT": addresses[rank],
    }


def run_worker(work: Callable[[Mapping[str, Any], ProcessGroup, Send], Any]) -> None:
    """The main function of a process that `run_processes` starts; does not return.

    Calls `work(job, group, send)`, and sends what it returns or raises.
    """
    connection = parents_pipe(sys.argv[-1])
    job = connection.recv()
    end_with_parent(job["parent"], KILL)
    for number in SIGNALS:  # some senders reach all processes; it is the parent who stops them
        signal.signal(number, signal.SIG_IGN)
    try:
        group = join_process_group(job["device"])
        if group.leads:
            logger = logging.getLogger("segslim")
            logger.addHandler(_LogSender(connection))  # type: ignore[arg-type]
            logger.setLevel(logging.INFO)
        ending = "result", work(job, group, lambda kind, content: connection.send((kind, content)))
    except Interrupted as stopped:
        ending = "stopped", (stopped.exit_code - 128, stopped.reached)
    except UserError as error:
        ending = "error", str(error)
    except BaseException:
        ending = "defect", traceback.format_exc()
    connection.send(ending)
    sys.stdout.flush()
    os._exit(0)  # an orderly end of gloo waits for the others, which may be gone


class _LogSender(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(("log", record))  # type: ignore[attr-defined]
