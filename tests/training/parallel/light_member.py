"""A process that trains nothing: it ends as its job says, without Paddle, for what is to be shown of supervision."""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from segslim.errors import Interrupted, UserError
from segslim.training.parallel.group import Group
from segslim.training.parallel.member import Say, take_part
from segslim.training.parallel.supervision import run_together

COMMAND = [sys.executable, "-m", "tests.training.parallel.light_member"]
RANK = int(os.environ.pop("PADDLE_TRAINER_ID", "0"))


def work(job: Mapping[str, Any], group: Group, say: Say) -> Any:
    say("started", [RANK, os.getpid()])
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
        signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
        say("ready", None)
        while not came:
            time.sleep(0.01)
        raise Interrupted(came[0], "training is saved at iteration 7 of 9")
    if how == "waits":
        time.sleep(600)
    logging.getLogger("segslim.toy").warning("process %d is done", RANK)
    return {"rank": RANK, "given": job["given"]}


if __name__ == "__main__":
    if sys.argv[1] == "supervisor":
        run_together(COMMAND, 2, {"ends": ["waits", "waits"]}, "cpu", lambda *said: print(*said, flush=True))
    else:
        del os.environ["PADDLE_TRAINERS_NUM"]
        take_part(work)
