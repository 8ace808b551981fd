"""Starts the processes of a training, listens to them, and ends them all when one ends.

A run that `python -m paddle.distributed.launch` started takes part with one process: the first such run leads, and the
others start a process for each of its trainings. Nothing here knows what a job is: it is passed on as plain values.
"""

import hashlib
import json
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
from pathlib import Path
from typing import Any

from segslim.child_process import PipeEnd, parents_pipe, start_child
from segslim.errors import KILL, Interrupted, UserError, end_with_parent
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
class _Worker:
    rank: int
    process: subprocess.Popen[bytes]
    connection: PipeEnd
    ending: tuple[str, Any] = ("", None)  # its last message: "result", "stopped", "error" or "defect"

    def has_failed(self) -> bool:
        return self.ending[0] != "result" and (self.ending[0] != "" or self.process.poll() is not None)


def run_processes(
    command: Sequence[str],
    size: int | None,
    job: Mapping[str, Any],
    device: str,
    on_message: Callable[[str, Any], None],
    stop: Callable[[], int] = lambda: 0,
) -> Any:
    """Runs `command` as the processes of a group, and returns what process 0 returned.

    No process is left behind, nor outlives this one. What process 0 logs is logged here.

    Args:
        command: a Python program that calls `run_worker`; the number of a pipe is added to its arguments.
        size: processes on this host, or None: one, in the place that Paddle's launcher gave to this process.
        job: passed to each process.
        device: "cpu" or "gpu".
        on_message: called with (kind, content) that processes send on the way.
        stop: asked regularly; once it returns a signal's number, process 0 gets the signal.

    Raises UserError or Interrupted when a process raised it, UserError when one was killed, RuntimeError with the
    traceback of any other exception.
    """
    with ExitStack() as stack:
        free = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(size or 0)]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in free]
    with ExitStack() as stack:
        started = (_start(command, _environment(device, rank, addresses), rank) for rank in range(size or 1))
        workers = [stack.enter_context(worker) for worker in started]
        for worker in workers:
            with suppress(OSError):  # it has ended already, and is reported like any other that has
                worker.connection.send({**job, "device": device, "parent": os.getpid()})
        return _supervise(workers, on_message, stop)


def _supervise(workers: Sequence[_Worker], on_message: Callable[[str, Any], None], stop: Callable[[], int]) -> Any:
    open_ones = {worker.connection: worker for worker in workers}
    failed_at = float("inf")
    while open_ones and time.monotonic() < failed_at + GRACE:
        for connection in wait(list(open_ones), TICK):
            assert isinstance(connection, PipeEnd)
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):  # closed, perhaps within a message
                del open_ones[connection]
                continue
            if kind in ("result", "stopped", "error", "defect"):
                open_ones[connection].ending = kind, content
            elif kind == "log":
                logger = logging.getLogger(content.name)
                if logger.isEnabledFor(content.levelno):
                    logger.handle(content)
            else:
                on_message(kind, content)
        if workers[0].ending[0] == "result":
            return workers[0].ending[1]
        if stop():  # again and again, since a process that has just started ignores it
            workers[0].process.send_signal(stop())
        if any(worker.has_failed() for worker in workers):
            failed_at = min(failed_at, time.monotonic())
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(0.1)  # one whose connection is closed is about to end
    raise _cause(workers, stop())


def _cause(workers: Sequence[_Worker], stopped: int) -> BaseException:
    """Why the training ended: what a process says of itself counts before what others notice of its absence."""
    endings = [worker.ending for worker in workers]
    for kind, content in endings:
        if kind == "error":
            return UserError(content)
    for kind, content in endings:
        if kind == "stopped":
            return Interrupted(*content)
    if stopped:
        return Interrupted(stopped)
    for worker in workers:
        code = worker.process.poll()
        if code is not None and not worker.ending[0]:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            return UserError(
                f"training: process {worker.rank} of {len(workers)} {how}: the same command goes on from the last"
                " saved iteration; if memory was short, give train.processes=1"
            )
    rank, trace = next((worker.rank, worker.ending[1]) for worker in workers if worker.ending[0] == "defect")
    return RuntimeError(f"training: process {rank} failed:\n{trace}")


@contextmanager
def _start(command: Sequence[str], environment: Mapping[str, str], rank: int) -> Iterator[_Worker]:
    process, ours = start_child(command, environment, own_group=True)  # Ctrl-C is for us, who then stop the training
    try:
        yield _Worker(int(environment.get("PADDLE_TRAINER_ID", rank)), process, ours)
    finally:
        process.kill()
        process.wait()
        ours.close()


def _environment(device: str, rank: int, addresses: Sequence[str]) -> dict[str, str]:
    """Returns a process's variables. Without addresses, those that Paddle's launcher has set describe the group."""
    environment = {
        **os.environ,
        "PADDLE_PG_TIMEOUT": str(10**9),  # milliseconds: the others wait while process 0 evaluates
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    if device == "cpu":
        environment |= {"PADDLE_DISTRI_BACKEND": "gloo", "OMP_NUM_THREADS": "1"}
    if addresses:
        for key in ("MASTER_ADDR", "PADDLE_MASTER"):
            environment.pop(key, None)
        environment |= {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(len(addresses)),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
            "PADDLE_CURRENT_ENDPOINT": addresses[rank],
            "FLAGS_selected_gpus": str(rank),
        }
    return environment


def run_worker(work: Callable[[Mapping[str, Any], ProcessGroup, Send], Any]) -> None:
    """The main function of a process that `run_processes` starts; does not return.

    Calls `work(job, group, send)`, and sends what it returns or raises.
    """
    connection = parents_pipe(sys.argv[-1])
    job = connection.recv()
    end_with_parent(job["parent"], KILL)
    for number in (signal.SIGINT, signal.SIGTERM):  # some senders reach all processes; it is the parent who stops them
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


@dataclass(frozen=True)
class Launch:
    """The place of this run among those that Paddle's launcher started, and the folder in which the first leads."""

    rank: int
    size: int
    folder: Path

    @classmethod
    def from_environment(cls, store: str) -> "Launch | None":
        """Returns the launch that this process belongs to, if any, by the variables that Paddle's launcher sets.

        The processes of a launch share the folder `store`.
        """
        size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        if size == 1:
            return None
        addresses = os.environ["PADDLE_TRAINER_ENDPOINTS"]  # their ports are new in each launch
        name = hashlib.sha256(addresses.encode()).hexdigest()[:20]
        return cls(int(os.environ["PADDLE_TRAINER_ID"]), size, Path(store).absolute() / "launched" / name)

    def check(self, stage: str, batch_size: int) -> None:
        """Raises UserError when a batch cannot be divided equally."""
        if batch_size % self.size:
            raise UserError(
                f"{stage}.batch_size={batch_size}: should be a multiple of {self.size}, the launched processes"
            )

    def publish(self, job: Mapping[str, Any]) -> None:
        """Called by the first run: gives the others a job to train with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob("*.json")))
        unfinished = self.folder / "unfinished"
        unfinished.write_text(json.dumps(job), encoding="utf-8")
        unfinished.replace(self.folder / f"{number}.json")

    def follow(self, train: Callable[[Mapping[str, Any]], Any]) -> None:
        """Called by the other runs: calls `train(job)` for each published job in turn, until the first run ends."""
        number = 0
        while True:
            file, ended = self.folder / f"{number}.json", (self.folder / "end").exists()
            if file.exists():
                train(json.loads(file.read_text(encoding="utf-8")))
                number += 1
            elif ended:
                return
            else:
                time.sleep(TICK)


@contextmanager
def release_followers(launch: Launch | None) -> Iterator[None]:
    """Around the first run of a launch: lets the others go when it ends, however it ends."""
    try:
        yield
    finally:
        if launch is not None:
            launch.folder.mkdir(parents=True, exist_ok=True)
            (launch.folder / "end").touch()
