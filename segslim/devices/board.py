"""A board over ssh: the system's own `ssh`, as the user's ~/.ssh/config has it."""

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import IO, Any, TypeVar

from filelock import FileLock

from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import PACKAGES, Unreachable
from segslim.deployment.engines.process import Child, Cut, died
from segslim.devices.on_board import ENGINES
from segslim.devices.packed import digest_of, files_of, given, write_program
from segslim.errors import UserError
from segslim.files import sha256_of

T = TypeVar("T")
FOLDER = ".cache/segslim"  # in the home folder there
ALIVE = ("ServerAliveInterval=10", "ServerAliveCountMax=3", "ConnectTimeout=15")
SSH = ("ssh", "-T", *(word for option in ("BatchMode=yes", *ALIVE) for word in ("-o", option)))
PATIENCE = (0.1, 1, 2, 4, 8, 15)  # seconds before each new try where a connection was lost
LOST, NOT_FOUND, DAMAGED = 255, 127, 3  # exit codes: ssh's own, the shell's, RECEIVE's
#: Takes files, [[name, size, SHA-256], ...]: says how much of each is there, and appends what comes to NAME.part, which
#: becomes NAME where its digest is right. Any Python 3 runs it.
RECEIVE = """
import hashlib, json, os, sys
wanted, there, damaged = json.loads(sys.argv[1]), [], 0
for name, size, digest in wanted:
    os.makedirs(os.path.dirname(name), exist_ok=True)
    part = name + ".part"
    there.append(size if os.path.exists(name) else os.path.getsize(part) if os.path.exists(part) else 0)
print(json.dumps(there), flush=True)
for (name, size, digest), at in zip(wanted, there):
    if os.path.exists(name):
        continue
    part = name + ".part"
    with open(part, "ab", buffering=0) as file:
        while at < size:
            block = sys.stdin.buffer.read1(min(size - at, 1 << 18))
            if not block:
                sys.exit(1)
            at += file.write(block)
    with open(part, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found == digest:
        os.replace(part, name)
    else:
        os.remove(part)
        damaged = 3
sys.exit(damaged)
"""


@cache
def board(host: str, python: str) -> "Board":
    """The one of this process: what it has told, and what it has been sent, is known."""
    return Board(host, python)


class Board:
    """A machine with `python` (a command, or a path from the home folder there) at `host`, as ssh takes it.

    What it is sent is kept there by its content: nothing is sent twice, and a file that was cut off goes on. Where the
    connection is lost, each step is tried again for half a minute.
    """

    def __init__(self, host: str, python: str) -> None:
        self.host, self._python = host, shlex.quote(python)
        self._sent: set[str] = set()
        self._said: dict[int, IO[bytes]] = {}
        self.patience: Sequence[float] = ()  # until it has answered once: a wrong name is told at once

    @cached_property
    def machine(self) -> dict[str, Any]:
        """See on_board.machine. Raises UserError in words where there is no such machine, Python or NumPy."""
        told = self._tried(lambda: self._run(f"{self._python} {self._program} machine"))
        line = next((line for line in reversed(told.splitlines()) if line.startswith("{")), None)
        if line is None:
            raise UserError(f"benchmark.host={self.host}: {self._python} there says nothing: is it Python?")
        return {"board": self.host, **json.loads(line)}

    @cached_property
    def _program(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "segslim.pyz")
            write_program(file)
            return shlex.quote(self.send([file])[0][0])

    def check_engines(self, names: Sequence[str], precision: str, int8: bool) -> None:
        """Raises UserError where none of the engines is there, or none computes in the float type, or in int8."""
        names = [name for name in names if name in ENGINES]
        if not names:
            raise UserError(f"benchmark.host={self.host}: engine has to be of {', '.join(ENGINES)} on a board")
        there = {name: found for name, found in self.machine["engines"].items() if name in names}
        if not there:
            package = PACKAGES.get(names[0], names[0])
            raise UserError(
                f"benchmark.host={self.host} has none of {', '.join(names)}:"
                f" ssh {self.host} {self.machine['executable']} -m pip install {package}"
            )
        if not any(precision in found["precisions"] for found in there.values()):
            raise UserError(
                f"engine.precision={precision}: none of {', '.join(there)} computes in it on {self.host}; give float32"
            )
        if int8 and not any(found["int8"] for found in there.values()):
            raise UserError(f"benchmark.host={self.host}: none of {', '.join(there)} computes in int8 there")

    # --- what a session asks of its place (see engines.process.Place)

    def alone(self) -> AbstractContextManager[Any]:
        name = f"segslim-{sha256(self.host.encode()).hexdigest()[:16]}.lock"
        return FileLock(Path(tempfile.gettempdir(), name), mode=0o666)

    def given(self, engine: str, deployment: Deployment, batch: Path) -> dict[str, Any]:
        files, (image,) = self.send(files_of(engine, deployment), [batch])
        return {"files": files, "batch": image, **given(deployment)}

    def start(self) -> Child:
        said = tempfile.TemporaryFile()  # noqa: SIM115 -- open until the process has ended
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
        process = _ssh(self.host, f"{self._python} {self._program} session", stderr=said, **pipes)
        self._said[process.pid] = said
        return process

    def ended(self, process: Child, name: str) -> Exception:
        with self._said.pop(process.pid) as said:
            said.seek(0)
            words = said.read()
        if process.returncode == LOST:
            return self._failed(LOST, words)
        return died(name, 128 - process.returncode if process.returncode > 128 else process.returncode)

    # --- what is sent and run

    def send(self, *groups: Sequence[Path]) -> list[list[str]]:
        """Their paths there, those of a group side by side."""
        named = [{f"{FOLDER}/{digest_of(tuple(group))}/{file.name}": file for file in group} for group in groups]
        missing = {name: file for group in named for name, file in group.items() if name not in self._sent}

        def transferred() -> bool:
            return self._transfer(missing)

        if missing and not self._tried(transferred) and not self._tried(transferred):
            raise UserError(f"benchmark.host={self.host}: files arrive damaged: is its disk full, or broken?")
        self._sent |= missing.keys()
        return [list(group) for group in named]

    def _transfer(self, files: Mapping[str, Path]) -> bool:
        """Sends what is not there. Whether all is right there: what is damaged is removed."""
        wanted = json.dumps([[name, file.stat().st_size, sha256_of(file)] for name, file in files.items()])
        command = f"{self._python} -c {shlex.quote(RECEIVE)} {shlex.quote(wanted)}"
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with tempfile.TemporaryFile() as said:
            # where it is cut off, its exit code says so
            with suppress(BrokenPipeError), _ssh(self.host, command, stderr=said, **pipes) as process:
                sizes = json.loads(next((line for line in process.stdout or () if line.startswith(b"[")), "[]"))
                for file, size in zip(files.values(), sizes, strict=False):
                    with file.open("rb") as stream:
                        stream.seek(size)
                        shutil.copyfileobj(stream, process.stdin)  # type: ignore[arg-type]
            said.seek(0)
            if process.returncode not in (0, DAMAGED):
                raise self._failed(process.returncode, said.read())
        return process.returncode != DAMAGED

    def _run(self, command: str) -> str:
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with _ssh(self.host, command, **pipes) as process:
            said, words = process.communicate()
        if process.returncode:
            raise self._failed(process.returncode, words)
        return said.decode(errors="replace")

    def _tried(self, step: Callable[[], T]) -> T:
        """Again where the connection was lost, for as long as self.patience says."""
        waits = iter(self.patience)
        while True:
            try:
                done = step()
                self.patience = PATIENCE
                return done
            except Cut as cut:
                wait = next(waits, None)
                if wait is None:
                    raise Unreachable(str(cut)) from None
                sleep(wait)

    def _failed(self, code: int, words: bytes) -> Exception:
        lines = words.decode(errors="replace").strip().splitlines() or ["the connection was lost"]
        said = f"benchmark.host={self.host}: {lines[-1].strip().removeprefix('error: ')}"
        if code == LOST:
            return Cut(f"{said}; the same command goes on when `ssh {self.host}` works")
        if code == NOT_FOUND:
            return UserError(
                f"benchmark.host={self.host} has no {self._python}: benchmark.python=PATH names its Python, from the"
                " home folder there"
            )
        return UserError(said)


def _ssh(host: str, command: str, **streams: Any) -> "subprocess.Popen[Any]":
    try:
        return subprocess.Popen([*SSH, host, command], **streams)
    except FileNotFoundError:
        raise UserError(f"benchmark.host={host}: there is no ssh here: install OpenSSH's client") from None
