"""Starts the processes of a training, hears what they say, and ends them all when one ends."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from segslim.errors import Interrupted, UserError

TICK, GRACE = 0.2, 1.0  # seconds: between two looks; for the cause of a failure to show, which may not be the first
PATIENCE = str(10**9)  # milliseconds that a process waits for the others, while one of them evaluates


@dataclass
class _Member:
    rank: int
    process: subprocess.Popen[str]
    channel: int  # what it says, line by line
    ends: dict[str, Any] = field(default_factory=dict)  # how it ended, in its own words


def run_together(
    command: Sequence[str],
    size: int,
    job: Mapping[str, Any],
    device: str,
    heard: Callable[[str, Any], None],
    stop: Callable[[], int] = lambda: 0,
) -> Any:
    """Runs `command`, which calls `take_part`, as `size` processes that share `job` (plain values).

    Returns what process 0 returned. `heard(kind, content)` gets what processes say on the way. Where `stop()` gives the
    number of a signal, process 0 gets it. No process is left behind, nor outlives this one.

    Raises UserError or Interrupted when a process raised it, UserError when one was killed, RuntimeError with the
    traceback of any other exception.
    """
    addresses = _free_addresses(size)
    return _run(command, [_place(rank, addresses) for rank in range(size)], {**job, "device": device}, heard, stop)


def run_launched(
    command: Sequence[str],
    job: Mapping[str, Any],
    device: str,
    heard: Callable[[str, Any], None],
    stop: Callable[[], int] = lambda: 0,
) -> Any:
    """The same with the one process that takes the place which Paddle's launcher gave to this one."""
    return _run(command, [{}], {**job, "device": device}, heard, stop)


def _run(
    command: Sequence[str],
    places: Sequence[Mapping[str, str]],
    job: Mapping[str, Any],
    heard: Callable[[str, Any], None],
    stop: Callable[[], int],
) -> Any:
    described = {**job, "supervisor": os.getpid()}
    with ExitStack() as stack:
        members = [stack.enter_context(_started(command, place, described)) for place in places]
        return _supervise(members, heard, stop)


def _supervise(members: Sequence[_Member], heard: Callable[[str, Any], None], stop: Callable[[], int]) -> Any:
    passed_on, failed_at = False, 0.0
    for member, kind, content in _messages(members):
        if member is not None and kind in ("result", "stopped", "error", "defect"):
            member.ends[kind] = content
        elif member is not None:
            heard(kind, content)
        if "result" in members[0].ends:
            return members[0].ends["result"]
        if stop() and not passed_on:
            members[0].process.send_signal(stop())
            passed_on = True
        if not failed_at and any(map(_failed, members)):
            failed_at = time.monotonic()
        if failed_at and time.monotonic() - failed_at > GRACE:
            break
    for member in members:
        with suppress(subprocess.TimeoutExpired):
            member.process.wait(0.1)  # where its pipe is closed, it is about to end
    raise _cause(members)


def _messages(members: Sequence[_Member]) -> Iterator[tuple[_Member | None, str, Any]]:
    """(who, kind, content) as it is said, and (None, "", None) at least every TICK, until all pipes are closed."""
    begun: dict[int, bytes] = {}  # lines whose end has not come yet
    with selectors.DefaultSelector() as selector:
        for member in members:
            selector.register(member.channel, selectors.EVENT_READ, member)
        while selector.get_map():
            for key, _ in selector.select(TICK):
                said = os.read(key.fd, 1 << 16)
                *lines, begun[key.fd] = (begun.get(key.fd, b"") + said).split(b"\n")
                for line in lines:
                    yield key.data, *json.loads(line)
                if not said:
                    selector.unregister(key.fd)
            yield None, "", None


def _failed(member: _Member) -> bool:
    return "result" not in member.ends and (bool(member.ends) or member.process.poll() is not None)


def _cause(members: Sequence[_Member]) -> BaseException:
    """Why the training ended: what one says of itself counts before that others miss it."""
    for kind, exception in (("error", UserError), ("stopped", lambda content: Interrupted(*content))):
        for member in members:
            if kind in member.ends:
                return exception(member.ends[kind])
    for member in members:
        code = member.process.poll()
        if code is not None and not member.ends:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            return UserError(
                f"training: process {member.rank} of {len(members)} {how}: the same command goes on from the last"
                " saved iteration; if memory was short, give train.processes=1"
            )
    defects = [member for member in members if "defect" in member.ends]
    return RuntimeError(f"training: process {defects[0].rank} failed:\n{defects[0].ends['defect']}")


def _free_addresses(size: int) -> list[str]:
    """Every process's address on this host."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@contextmanager
def _started(command: Sequence[str], place: Mapping[str, str], job: Mapping[str, Any]) -> Iterator[_Member]:
    reading, writing = os.pipe()
    environment = _environment(place, job["device"])
    process = subprocess.Popen(
        [*command, str(writing)],
        stdin=subprocess.PIPE,
        pass_fds=[writing],
        start_new_session=True,  # Ctrl-C is for this process, which ends the training in an orderly way
        env=environment,
        text=True,
    )
    os.close(writing)
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):  # it has ended already, which is told as of any other
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        yield _Member(int(environment["PADDLE_TRAINER_ID"]), process, reading)
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        os.close(reading)


def _place(rank: int, addresses: Sequence[str]) -> dict[str, str]:
    """Paddle's description of a process of a group on this host."""
    return {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(addresses)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
        "PADDLE_CURRENT_ENDPOINT": addresses[rank],
        "FLAGS_selected_gpus": str(rank),
    }


def _environment(place: Mapping[str, str], device: str) -> dict[str, str]:
    """Of a process: on the CPU it computes on one core. Without a place it has that of this one."""
    others = ("MASTER_ADDR", "PADDLE_MASTER") if place else ()
    plain = {key: value for key, value in os.environ.items() if key not in others}
    importable = os.pathsep.join(filter(None, sys.path))  # what this process can import, it can
    cpu = {"PADDLE_DISTRI_BACKEND": "gloo", "OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    return {**plain, **place, **cpu, "PADDLE_PG_TIMEOUT": PATIENCE, "PYTHONPATH": importable}
