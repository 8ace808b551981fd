"""A session in a process of its own, to be timed there as it will be deployed.

Within one process engines disturb each other: threads of one that spin for a while after a run take cores from
Paddle's OpenMP team, all of which waits for its slowest thread after every operator, two to three times as long.
"""

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np

from segslim.child_process import parents_pipe, start_child
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import NodeTime
from segslim.errors import KILL, UserError, end_with_parent
from segslim.hardware import OMP_NUM_THREADS, garbage_collector_off, turn

PATIENCE = 10.0  # seconds for a process to end by itself


class TimedSession:
    """A deployment that another process has opened, and runs on a batch that it has been given.

    Opening does not wait: several are opened side by side, and the first call waits. Used as a context, after which
    the process is gone.
    """

    def __init__(self, name: str, deployment: Deployment, batch: np.ndarray, *, threads: int, precision: str) -> None:
        """name, deployment, threads, precision: as of open_session; batch: the input of every run."""
        self.name = name
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("OMP_NUM_THREADS", None)  # Paddle sets it when it is imported, for what it trains
        if OMP_NUM_THREADS is not None:
            environment["OMP_NUM_THREADS"] = OMP_NUM_THREADS
        command = [sys.executable, "-m", "segslim.deployment.engines.process", str(os.getpid())]
        self._process, self._pipe = start_child(command, environment, stdout=2)
        self._pipe.send((name, deployment.single_file or deployment.folder, batch, threads, precision))
        self._opened: Any = None

    def __enter__(self) -> "TimedSession":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # which ends it
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def opens(self) -> bool:
        """Whether the engine runs the deployment. Raises UserError where its process is gone."""
        try:
            self.describe()
        except UserError:
            if self._process.poll() is not None and self._process.returncode < 0:
                raise
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """As of a Session. Raises UserError where it could not be opened."""
        if self._opened is None:
            self._opened = self._answer()
        return dict(self._opened)

    def turn(self, count: int, settle: float) -> list[float]:
        """Milliseconds of each of `count` runs, after untimed ones, at least one, for `settle` seconds."""
        self.describe()
        self._pipe.send((count, settle))
        samples: list[float] = self._answer()
        return samples

    def node_times(self, runs: int) -> list[NodeTime]:
        """As of the engine (see engines.node_times)."""
        self.describe()
        self._pipe.send((runs, None))
        times: list[NodeTime] = self._answer()
        return times

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            number = self._process.wait()
            ended = signal.Signals(-number).name if number < 0 else f"exit code {number}"
            raise UserError(f"engine {self.name}: its process ended with {ended}; is there enough memory?") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def main(parent: int, number: int) -> None:
    """The other process: opens what it is told, and runs it for as long as it is asked to."""
    from segslim.deployment.engines import node_times, open_session

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which closes the pipe
    end_with_parent(parent, KILL)
    pipe = parents_pipe(number)
    name, deployment, batch, threads, precision = pipe.recv()
    try:
        session = open_session(name, deployment, threads=threads, precision=precision)
        feed = {session.input_names[0]: batch}
        session.run(feed)
        pipe.send(session.describe())
        while True:
            count, settle = pipe.recv()
            if settle is None:
                opened = deployment if isinstance(deployment, Deployment) else Deployment.load(deployment)
                pipe.send(node_times(name, opened, feed, count, threads=threads, precision=precision))
                continue
            with garbage_collector_off():
                pipe.send(turn(lambda: session.run(feed), count, settle))
    except EOFError:
        return
    except UserError as error:
        pipe.send(error)
    except Exception as error:  # each engine raises its own kind, which the parent may not be able to load
        pipe.send(UserError(f"{name}: {str(error).strip().splitlines()[-1] if str(error).strip() else error!r}"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
