"""Engines that run a Deployment: one file an engine, one interface, each imported only when it is opened.

A file comes in, a session that runs it goes out. No engine knows another, nor what it runs. An engine is called by its
name in ENGINES, or is the function `open_session` at `package.module:open_session`.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from segslim.engines.precision import read_precision
from segslim.errors import UserError
from segslim.plugins import import_path, is_path

# An engine is named as the package that it needs.
ENGINES: dict[str, str] = {
    "paddle": "segslim.engines.paddle_inference",
    "onnxruntime": "segslim.engines.onnx_runtime",
    "openvino": "segslim.engines.openvino",
    "tensorrt": "segslim.engines.tensorrt",
}


class Session(Protocol):
    """A Deployment loaded by one engine."""

    name: str
    input_names: list[str]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The deployment's outputs for one batch; the arrays are the caller's to keep."""

    def describe(self) -> dict[str, Any]:
        """Name and version of the engine, and the device, threads and precision that it was opened with."""


def available(names: Iterable[str] = tuple(ENGINES)) -> list[str]:
    """Those of the engines that are here: whose packages are installed, or that are named by their function."""
    return [name for name in names if is_path(name) or (name in ENGINES and find_spec(name) is not None)]


def computes_in(name: str) -> list[str]:
    """The float types that the installed engine `name` can compute in on this machine's processor: what `precisions`
    of its file gives, where there is one.
    """
    if name in ("paddle", "onnxruntime"):  # slow to import, only to learn this
        return ["float32"]
    module = _file(name)
    return list(module.precisions()) if hasattr(module, "precisions") else ["float32"]


def runs_int8(name: str) -> bool:
    """Whether the installed engine `name` computes an int8 deployment in int8 on this machine; one from outside does,
    unless `runs_int8` of its file denies it.
    """
    if name == "paddle":  # simulates it, in ten times the time
        return False
    return name == "onnxruntime" or bool(getattr(_file(name), "runs_int8", lambda: True)())


def open_session(
    name: str, deployment: Path, *, threads: int, precision: str = "float32", device: str = "cpu"
) -> Session:
    """Loads `deployment` (a Deployment folder, or for the ONNX engines an .onnx file) with the engine called `name`.

    Raises UserError where the engine is unknown or not installed, or cannot do `precision` or `device` here, or an int8
    deployment.
    """
    if name not in ENGINES and not is_path(name):
        raise UserError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    if not available([name]):
        raise UserError(
            f"engine {name} is not installed: pip install {name}, or choose one of {', '.join(available())}"
        )
    if threads < 1:
        raise UserError(f"engine {name} cannot run with {threads} threads; give at least 1")
    if read_precision(deployment).is_int8 and not runs_int8(name):
        able = [other for other in available() if runs_int8(other)]
        raise UserError(f"engine {name} does not compute in int8 on this machine; choose {' or '.join(able)}")
    opener = import_path(name, "engine") if is_path(name) else import_module(ENGINES[name]).open_session
    session: Session = opener(Path(deployment), threads=threads, precision=precision, device=device)
    return session


def _file(name: str) -> ModuleType:
    return import_module(ENGINES[name] if name in ENGINES else name.partition(":")[0])
