"""A child process and the pipe to it, where it is one with the parent's handles (POSIX) and where it is not (Windows).

What is for Windows follows Python's documentation and was not run by us.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Pipe
from typing import Any

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as PipeEnd
else:
    from multiprocessing.connection import Connection as PipeEnd

__all__ = ["PipeEnd", "parents_pipe", "start_child"]


def start_child(
    command: Sequence[str], environment: Mapping[str, str], *, own_group: bool = False, stdout: int | None = None
) -> tuple["subprocess.Popen[bytes]", PipeEnd]:
    """Starts `command`, with the number that `parents_pipe` takes behind it; returns it and our end of the pipe.

    In its `own_group` it does not get Ctrl-C.
    """
    ours, theirs = Pipe()
    number = theirs.fileno()
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        os.set_handle_inheritable(number, True)
        startup = subprocess.STARTUPINFO()
        startup.lpAttributeList = {"handle_list": [number]}
        group = subprocess.CREATE_NEW_PROCESS_GROUP if own_group else 0
        options = {"startupinfo": startup, "creationflags": group}
    else:
        options = {"pass_fds": [number], "start_new_session": own_group}
    with theirs:
        process = subprocess.Popen(
            [*command, str(number)], env=dict(environment), stdin=subprocess.DEVNULL, stdout=stdout, **options
        )
    return process, ours


def parents_pipe(number: int | str) -> PipeEnd:
    """In the child: its end of the pipe."""
    return PipeEnd(int(number))
