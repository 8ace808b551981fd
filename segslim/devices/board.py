"""A board over ssh: the system's own `ssh`, as the user's ~/.ssh/config has it."""

import json
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import IO, Any

from filelock import FileLock

from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import PACKAGES, Unreachable
from segslim.deployment.engines.process import Child, Cut, died
from segslim.devices.packed import digest_of, files_of, given, write_program
from segslim.errors import UserError
from segslim.files import sha256_of

FOLDER = ".cache/segslim"  # in the home folder there
ALIVE = ("ServerAliveInterval=10", "ServerAliveCountMax=3", "ConnectTimeout=15")
SSH = ("ssh", "-T", *(word for option in ("BatchMode=yes", *ALIVE) for word in ("-o", option)))
LOST, NOT_FOUND, DAMAGED = 255, 127, 3  # exit codes: ssh's own, the shell's, RECEIVE's
#: Appends what comes to a file of the name FILE.part, which becomes FILE when its SHA-256 is right.
RECEIVE = """
import hashlib, os, sys
part, digest = sys.argv[1:]
with open(part, "ab", buffering=0) as file:
    for block in iter(lambda: sys.stdin.buffer.read1(1 << 18), b""):
        file.write(block)
with open(part, "rb") as file:
    found = hashlib.sha256(file.read()).hexdigest()
sys.exit(3) if found != digest else os.replace(part, part[:-5])
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
        told = self._run(f"{self._python} {self._program} machine")
        line = next((line for line in reversed(told.splitlines()) if line.startswith("{")), "{}")
        return {"board": self.host, **json.loads(line)}

    @cached_property
    def _program(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "segslim.pyz")
            write_program(file)
            return shlex.quote(self.send([file])[0])

    def check_engines(self, names: Sequence[str], precision: str) -> None:
        """Raises UserError where none of the engines is there, or none computes in the float type."""
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

    # --- what a session asks of its place (see engines.process.Place)

    def alone(self) -> AbstractContextManager[Any]:
        name = f"segslim-{sha256(self.host.encode()).hexdigest()[:16]}.lock"
        return FileLock(Path(tempfile.gettempdir(), name), mode=0o666)

    def given(self, engine: str, deployment: Deployment, batch: Path) -> dict[str, Any]:
        files = self.send(files_of(engine, deployment))
        return {"files": files, "batch": self.send([batch])[0], **given(deployment)}

    def start(self) -> Child:
        said = tempfile.TemporaryFile()  # noqa: SIM115 -- open until the process has ended
        command = [*SSH, self.host, f"{self._python} {self._program} session"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
        process = subprocess.Popen(command, stderr=said, **pipes)
        self._said[process.pid] = said
        return process

    def ended(self, process: Child, name: str) -> Exception:
        with self._said.pop(process.pid) as said:
            said.seek(0)
            words = said.read()
        if process.returncode == LOST:
            return self._lost(words)
        return died(name, 128 - process.returncode if process.returncode > 128 else process.returncode)

    # --- files

    def send(self, files: Sequence[Path]) -> list[str]:
        """Their paths there, side by side."""
        folder = f"{FOLDER}/{digest_of(tuple(files))}"
        there = [f"{folder}/{file.name}" for file in files]
        if folder in self._sent:
            return there
        names = " ".join(shlex.quote(name) for name in there)
        having = 'if [ -f "$f" ]; then echo -1; elif [ -f "$f.part" ]; then wc -c < "$f.part"; else echo 0; fi'
        asking = f"mkdir -p {folder} && for f in {names}; do {having}; done"
        waits = iter(self.patience or (1, 1))
        while True:
            sizes = [int(word) for word in self._run(asking).split()[-len(files) :]]
            missing = [(file, name, size) for file, name, size in zip(files, there, sizes, strict=True) if size >= 0]
            if not missing:
                self._sent.add(folder)
                return there
            if not all(self._append(*each) for each in missing):
                wait = next(waits, None)
                if wait is None:
                    raise Unreachable(f"benchmark.host={self.host}: files do not arrive whole; type the same again")
                sleep(wait)

    def _append(self, file: Path, there: str, size: int) -> bool:
        """Sends the rest of a file of which `size` bytes are there. Whether all went well."""
        part = shlex.quote(f"{there}.part")
        with file.open("rb", buffering=0) as stream:
            stream.seek(size)
            command = f"{self._python} -c {shlex.quote(RECEIVE)} {part} {sha256_of(file)}"
            done = subprocess.run([*SSH, self.host, command], stdin=stream, capture_output=True)
        if done.returncode == DAMAGED:
            self._run(f"rm -f {part}")
        elif done.returncode not in (0, LOST):
            raise self._failed(done.returncode, done.stderr)
        return done.returncode == 0

    # --- commands

    def _run(self, command: str) -> str:
        waits = iter(self.patience)
        while True:
            try:
                done = subprocess.run([*SSH, self.host, command], stdin=subprocess.DEVNULL, capture_output=True)
            except FileNotFoundError:
                raise UserError(f"benchmark.host={self.host}: there is no ssh here: install OpenSSH's client") from None
            if done.returncode == 0:
                self.patience = (1, 2, 4, 8, 15)
                return done.stdout.decode(errors="replace")
            if done.returncode != LOST:
                raise self._failed(done.returncode, done.stderr)
            wait = next(waits, None)
            if wait is None:
                raise Unreachable(str(self._lost(done.stderr)))
            sleep(wait)

    def _lost(self, words: bytes) -> Cut:
        return Cut(f"benchmark.host={self.host}: {_last(words)}; the same command goes on when `ssh {self.host}` works")

    def _failed(self, code: int, words: bytes) -> UserError:
        if code == NOT_FOUND:
            return UserError(
                f"benchmark.host={self.host} has no {self._python}: benchmark.python=PATH names its Python, from the"
                " home folder there"
            )
        return UserError(f"benchmark.host={self.host}: {_last(words)}")


def _last(words: bytes) -> str:
    lines = words.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().removeprefix("error: ") if lines else "the connection was lost"
