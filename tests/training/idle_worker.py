"""A worker that trains nothing, without Paddle: it ends as its job says."""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from segslim.errors import Interrupted, UserError
from segslim.training.process_group import ProcessGroup
from segslim.training.processes import Send, run_processes, run_worker

COMMAND = [sys.executable, "-m", "tests.training.idle_worker"]
RANK = int(os.environ.pop("PADDLE_TRAINER_ID", "0"))


def work(job: Mapping[str, Any], group: ProcessGroup, send: Send) -> Any:
    send("started", [RANK, os.getpid()])
    how = job["ends"][RANK]
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "leaves":
        os._exit(3)
    if how == "wrong":
        raise UserError("a label is wrong")
    if how == "defect":
        raise ValueError("a defect")
    if how == "stops":
        came: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):  # as a training does
            signal.signal(number, lambda number, frame: came.append(number))
        send("ready", None)
        while not came:
            time.sleep(0.01)
        raise Interrupted(came[0], "training is saved at iteration 7 of 9")
    if how == "waits":
        time.sleep(600)
    logging.getLogger("segslim.toy").warning("process %d is done", RANK)
    return {"rank": RANK, "given": job["given"]}


if __name__ == "__main__":
    if sys.argv[1] == "supervisor":
        run_processes(COMMAND, 2, {"ends": ["waits", "waits"]}, "cpu", lambda *message: print(*message, flush=True))
    else:
        del os.environ["PADDLE_TRAINERS_NUM"]
        run_worker(work)
