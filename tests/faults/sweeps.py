"""Sweeps in a session of their own, whose processes can be counted and killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.command import ROOT
from tests.faults.command import until


class Sweep:
    """`python run.py -m ARGUMENTS` at work in a folder."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._cwd = cwd
        with (cwd / "stdout.txt").open("w") as out, (cwd / "stderr.txt").open("w") as err:
            command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments]
            self._process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, start_new_session=True)
        self.pid = self._process.pid

    def wait_until(self, seen: Callable[[], object]) -> None:
        """Until `seen()`; fails where the sweep ends before."""
        until(lambda: seen() or self._process.poll() is not None)
        assert seen(), self.stderr

    def wait(self) -> int:
        return self._process.wait(timeout=300)

    def processes(self) -> list[tuple[int, str]]:
        """(process id, command line) of all in its session that live."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state != "Z":
                    found.append((int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")))
            except (OSError, ValueError):  # no process, or not any more
                continue
        return found

    def workers(self) -> list[int]:
        return [pid for pid, command in self.processes() if "popen_loky" in command]

    def end(self) -> None:
        """Kills what is left of it."""
        for pid, _ in self.processes():
            os.kill(pid, signal.SIGKILL)

    @property
    def stdout(self) -> str:
        return (self._cwd / "stdout.txt").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return (self._cwd / "stderr.txt").read_text(encoding="utf-8")
