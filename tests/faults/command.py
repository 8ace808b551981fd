"""Types the command in a process that can be killed: forked from one that has imported Paddle.

The seed of what happens when is that of hypothesis: printed at the head of a test run, given by --hypothesis-seed=N.
"""

import json
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.command import QUICK_PRUNING, ROOT, TINY, last_report

PRUNE = (*TINY, *QUICK_PRUNING, "compress=prune", "compress.ratio=0.2")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["zlib", "paddle", "paddleseg.models", "hydra", "onnxruntime", "onnx", "cv2", "pydantic"]
)


class Typed:
    """`python run.py ARGUMENTS` at work in a folder of its own, where its store and its outputs are."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._out, self._err = cwd / "stdout.txt", cwd / "stderr.txt"
        self._process = _context.Process(target=_run, args=([*arguments], cwd, self._out, self._err))
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self, timeout: float = 300) -> int:
        """Its exit code: negative where a signal ended it at once."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"it did not end within {timeout} seconds; it wrote {self.stderr}")
        return self._process.exitcode

    def wait_or_kill(self, timeout: float) -> int:
        """As wait, but a process that does not end is killed, as its user would."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode or 0

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace") if self._err.exists() else ""

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else ""


def _run(arguments: list[str], cwd: Path, out: Path, err: Path) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    for number, file in ((1, out), (2, err)):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.argv = [str(ROOT / "run.py"), *arguments]
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")


def until(seen: Callable[[], object]) -> None:
    """Waits; fails where it takes five minutes."""
    deadline = time.monotonic() + 300
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def forked(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """The function at work in such a process."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    return process


def finished(*arguments: str, cwd: Path) -> Typed:
    """The command, undisturbed and well ended."""
    typed = Typed(*arguments, cwd=cwd)
    assert typed.wait() == 0, typed.stderr
    return typed


def stages_at_work(store: Path) -> Iterator[str]:
    """Fingerprints of the stages that are being made, or whose making was cut off."""
    work = store / "work"
    return (folder.name for folder in work.iterdir() if (folder / "artifact").is_dir()) if work.is_dir() else iter(())


def wait_for_stage(typed: Typed, store: Path, but: set[str]) -> str | None:
    """The fingerprint of the first stage at work that is none of `but`; None where the command ends before."""
    while typed.running:
        found = next((fingerprint for fingerprint in stages_at_work(store) if fingerprint not in but), None)
        if found is not None:
            return found
        time.sleep(0.002)
    return None


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    """{fingerprint: manifest} of what is committed."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in (store / "artifacts").glob("*/manifest.json")]
    return {manifest["fingerprint"]: manifest for manifest in found}


def forget(store: Path, fingerprint: str) -> None:
    """Takes one artifact out of the store."""
    for file in (store / "artifacts").glob(f"*-{fingerprint[:20]}"):
        shutil.rmtree(file)


def weights(store: Path) -> dict[str, str]:
    """{fingerprint: SHA-256 of the weights} of every checkpoint in a store."""
    committed = manifests(store).items()
    files = {fingerprint: manifest["files"] for fingerprint, manifest in committed}
    return {key: names["weights.safetensors"] for key, names in files.items() if "weights.safetensors" in names}


def figures(folder: Path) -> dict[str, Any]:
    """What the last report says, without what a clock measured."""
    report = last_report(folder)
    timed = ("latency_ms", "latency", "latency_interval", "seconds", "deployment", "cached", "store")

    def untimed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: untimed(value) for key, value in node.items() if key not in timed}
        return [untimed(value) for value in node] if isinstance(node, list) else node

    return untimed({key: report[key] for key in ("strategy", "baseline", "compressed", "change")})
