"""A session in a process of its own, to be timed there as it will be deployed; on this machine or on another one.

Within one process engines disturb each other: threads of one that spin for a while after a run take cores from
Paddle's OpenMP team, all of which waits for its slowest thread after every operator, two to three times as long.

The process is asked by lines of JSON on its standard input, and answers with lines of JSON on its standard output.
"""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segslim.deployment.engines import NodeTime, Session, Unreachable, node_times, open_session
from segslim.errors import KILL, UserError, end_with_parent
from segslim.hardware import OMP_NUM_THREADS, conditions, cores, garbage_collector_off, turn, usage

if TYPE_CHECKING:
    from segslim.deployment.deployment import Deployment

PATIENCE = 10.0  # seconds for a process to end by itself
Child = subprocess.Popen[str]


class Cut(Exception):
    """The connection to the machine was lost."""


class Place(Protocol):
    """A machine that sessions run on."""

    #: Seconds to wait before each new try where the connection to it was lost.
    patience: Sequence[float]

    def alone(self) -> AbstractContextManager[Any]:
        """Within it, no other command of this user times there."""

    def given(self, engine: str, deployment: "Deployment", batch: Path) -> dict[str, Any]:
        """What a process there opens: the engine's files of a deployment, and a file with the input of every run."""

    def start(self) -> Child:
        """Starts such a process."""

    def ended(self, process: Child, name: str) -> Exception:
        """Why it is gone: Cut, or UserError in words."""


class Here:
    """This machine. `command`: what starts a process, where it is not this checkout."""

    patience: Sequence[float] = ()

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "segslim.deployment.engines.process")) -> None:
        self._command = command

    def alone(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def given(self, engine: str, deployment: "Deployment", batch: Path) -> dict[str, Any]:
        return {"path": str(deployment.single_file or deployment.folder), "batch": str(batch)}

    def start(self) -> Child:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("OMP_NUM_THREADS", None)  # Paddle sets it when it is imported, for what it trains
        if OMP_NUM_THREADS is not None:
            environment["OMP_NUM_THREADS"] = OMP_NUM_THREADS
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        return subprocess.Popen([*self._command, str(os.getpid())], env=environment, **pipes)

    def ended(self, process: Child, name: str) -> Exception:
        return died(name, process.returncode)


HERE = Here()


def died(name: str, code: int) -> UserError:
    """Of an engine's process that ended by itself: `code` is negative for a signal."""
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return UserError(f"engine {name}: its process ended with {ended}; is there enough memory?")


class TimedSession:
    """A deployment that another process has opened, and runs on a batch that it has been given.

    Opening does not wait: several are opened side by side, and the first call waits. Used as a context, after which
    the process is gone. Where the connection to its machine is lost, it is opened there again, and what was asked of it
    is asked again; raises Unreachable where the machine does not come back.
    """

    def __init__(
        self, name: str, given: Mapping[str, Any], *, threads: int, precision: str, place: Place = HERE
    ) -> None:
        """name, threads, precision: as of open_session, threads 0 for all cores there; given: what `place` gives."""
        self.name, self._place = name, place
        self.input_names: list[str] = []
        #: See hardware.conditions: the hottest, the slowest and the most held back of all turns.
        self.conditions: dict[str, float] = {}
        self._opening = {"engine": name, "threads": threads, "precision": precision, **given}
        self._gone = False
        self._begin()

    def __enter__(self) -> "TimedSession":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def opens(self) -> bool:
        """Whether the engine runs the deployment. Raises UserError where its process is gone."""
        try:
            self.describe()
        except UserError as error:
            if self._gone or isinstance(error, Unreachable):
                raise
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """As of a Session. Raises UserError where it could not be opened."""
        return dict(self._ask("describe"))

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Its first output, for the batch that it has."""
        return [np.load(io.BytesIO(zlib.decompress(base64.b64decode(self._ask("output")))))]

    def turn(self, count: int, settle: float) -> list[float]:
        """Milliseconds of each of `count` runs, after untimed ones, at least one, for `settle` seconds."""
        samples, now = self._ask("turn", count, settle)
        for name, value in now.items():
            worse = min if name == "mhz" else max
            self.conditions[name] = worse(value, self.conditions.get(name, value))
        return list(samples)

    def usage(self) -> dict[str, Any]:
        """See hardware.usage."""
        return dict(self._ask("usage"))

    def node_times(self, runs: int) -> list[NodeTime]:
        """As of the engine (see engines.node_times)."""
        return [NodeTime(tuple(names), kind, ms) for names, kind, ms in self._ask("nodes", runs)]

    def _begin(self) -> None:
        self._process, self._opened = self._place.start(), None
        self._send(self._opening)

    def _end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):  # the first of which ends it
            with suppress(OSError):
                stream and stream.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, *request: Any) -> Any:
        waits = iter(self._place.patience)
        while True:
            try:
                if self._opened is None:
                    self._opened = self._answer()
                if request == ("describe",):
                    return self._opened
                self._send(request)
                return self._answer()
            except Cut as cut:
                wait = next(waits, None)
                if wait is None:
                    raise Unreachable(str(cut)) from None
            self._end()
            time.sleep(wait)
            self._begin()

    def _send(self, request: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # that it is gone is seen when its answer is read
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"') and line.endswith("\n"):  # the shell of a board may greet first
                answer = json.loads(line)
                if "error" in answer:
                    raise UserError(answer["error"])
                return answer["value"]
        self._process.wait()
        error = self._place.ended(self._process, self.name)
        self._gone = not isinstance(error, Cut)
        raise error


def serve(parent: int | None) -> None:
    """The process: opens what it is told, and runs it for as long as it is asked to; ends with its `parent`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which closes the pipe
    if parent is not None:
        end_with_parent(parent, KILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # engines print

    def answer(**what: Any) -> None:
        with suppress(BrokenPipeError):
            print(json.dumps(what), file=answers, flush=True)

    name = "the engine"
    try:
        opening = json.loads(sys.stdin.readline() or "{}")
        if not opening:
            return
        name, precision, threads = opening["engine"], opening["precision"], opening["threads"] or cores()
        deployment = _deployment(opening)
        session = open_session(name, deployment, threads=threads, precision=precision)
        feed = {session.input_names[0]: np.load(opening["batch"])}
        session.run(feed)
        answer(value=session.describe())
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            if what == "nodes":
                times = node_times(name, deployment, feed, *arguments, threads=threads, precision=precision)
                answer(value=[[node.names, node.op_type, node.ms] for node in times])
            else:
                answer(value=_done(session, feed, what, *arguments))
    except UserError as error:
        answer(error=str(error))
    except Exception as error:  # each engine raises its own kind
        answer(error=f"{name}: {str(error).strip().splitlines()[-1] if str(error).strip() else error!r}")


def _done(session: Session, feed: Mapping[str, np.ndarray], what: str, *arguments: Any) -> Any:
    if what == "turn":
        with garbage_collector_off():
            samples = turn(lambda: session.run(feed), *arguments)
        return samples, conditions()
    if what == "output":
        file = io.BytesIO()
        np.save(file, session.run(feed)[0])
        return base64.b64encode(zlib.compress(file.getvalue())).decode()
    return usage()


def _deployment(opening: Mapping[str, Any]) -> Any:
    """The Deployment here; on a board what of it an engine reads."""
    if "path" in opening:
        from segslim.deployment.deployment import Deployment

        path = Path(opening["path"])
        return Deployment.from_onnx(path) if path.suffix == ".onnx" else Deployment.load(path)
    files = [Path(file) for file in opening["files"]]
    precision = SimpleNamespace(is_int8=opening["weights"] == "int8", target=opening["target"])
    read = dict.fromkeys(("onnx_file", "openvino_file", "mnn_file"), files[0])
    return SimpleNamespace(**read, ncnn_files=files, output=opening["output"], precision=precision)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
