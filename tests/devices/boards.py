"""A real sshd on the loopback interface, with two boards: ports that lead to home folders of their own."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def python_with(folder: Path, *packages: str) -> Path:
    """A Python that has these packages and the standard library, as a board has them: no segslim and no Paddle."""
    library = folder / "-".join(("library", *packages))
    library.mkdir()
    for package in packages:
        found = Path(str(importlib.util.find_spec(package).submodule_search_locations[0]))
        about = found.parent.glob(f"{package}-*.dist-info")
        for each in (found, *about, *found.parent.glob(f"{package}.libs")):
            (library / each.name).symlink_to(each)
    command = folder / "-".join(("python", *packages))
    command.write_text(f'#!/bin/sh\nPYTHONPATH={library} exec {sys.executable} -S "$@"\n')
    command.chmod(0o755)
    return command


class Boards:
    """`pi` and `jetson`, names in ~/.ssh/config; `nobody` answers to none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = python_with(folder, "numpy", "onnxruntime")
        self.bare = python_with(folder, "numpy")
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        ports = {name: _free_port() for name in ("pi", "jetson", "nobody")}
        common = [
            *("ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/user.pub"),
            *("StrictModes no", "UsePAM no", "PidFile none"),
        ]
        server = [f"Port {ports[name]}" for name in ("pi", "jetson")] + common
        for name in ("pi", "jetson"):
            self.home(name).mkdir()
            forced = f'cd {self.home(name)} && eval "$SSH_ORIGINAL_COMMAND"'
            server += [f"Match LocalPort {ports[name]}", f"  ForceCommand {forced}"]
        (folder / "sshd_config").write_text("\n".join(server) + "\n")
        client = ["UserKnownHostsFile /dev/null", "StrictHostKeyChecking no", "LogLevel ERROR"]
        client += [f"IdentityFile {folder}/user", "IdentitiesOnly yes", "HostName 127.0.0.1"]
        client += [f"Host {name}\n  Port {port}" for name, port in ports.items()]
        (folder / "ssh_config").write_text("\n".join(client) + "\n")
        (folder / "bin").mkdir()  # ssh reads ~/.ssh/config wherever $HOME is
        (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        (folder / "bin" / "ssh").chmod(0o755)
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def home(self, name: str) -> Path:
        return self.folder / f"home-{name}"

    @contextmanager
    def serving(self) -> Iterator["Boards"]:
        with (self.folder / "sshd.log").open("w+") as log:
            command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._server = subprocess.Popen(command, stderr=log)
            try:
                while (said := (self.folder / "sshd.log").read_text()).count("listening") < 2:
                    if self._server.poll() is not None:
                        pytest.skip(f"sshd does not start: {said.strip()}")
                yield self
            finally:
                self._server.terminate()
                self._server.wait()

    def cut(self) -> None:
        """Kills what serves the connections that there are."""
        served = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        for number in served:
            os.kill(int(number), signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
