"""A process that trains with others: what it is told, and what it says."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from segslim.errors import Interrupted, UserError
from segslim.interruption import end_with_parent
from segslim.training.parallel.group import Group, join_group

Say = Callable[[str, Any], None]
"""Called as say(kind, plain content); the process that supervises hears it."""


def take_part(work: Callable[[Mapping[str, Any], Group, Say], Any]) -> None:
    """Calls `work(job, group, say)` with the job that `run_together` gave, says what it returns or raises, and ends.

    Its standard input holds the job; its last argument is the number of the pipe on which it is heard.
    """
    job = json.loads(sys.stdin.readline())
    end_with_parent(job["supervisor"], signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach all, and it is the supervisor who ends a training
        signal.signal(number, signal.SIG_IGN)
    channel = os.fdopen(int(sys.argv[-1]), "w", encoding="utf-8", buffering=1)

    def say(kind: str, content: Any) -> None:
        channel.write(json.dumps([kind, content]) + "\n")

    try:
        group = join_group(job["device"])
        if group.leads:
            logger = logging.getLogger("segslim")
            logger.addHandler(_Forwarded(say))
            logger.setLevel(logging.INFO)
        say("result", work(job, group, say))
    except Interrupted as stopped:
        say("stopped", [stopped.exit_code - 128, stopped.reached])
    except UserError as error:
        say("error", str(error))
    except BaseException:
        say("defect", traceback.format_exc())
    channel.close()
    sys.stdout.flush()
    os._exit(0)  # taking down gloo in an orderly way waits for the others, who may be gone


class _Forwarded(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("log", [record.name, record.levelno, record.getMessage()])
