"""MNN, on processors: float32, and int8 where model.mnn is, from model.mnn."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segslim.deployment.engines import require

if TYPE_CHECKING:
    from segslim.deployment.deployment import Deployment


@contextmanager
def _silenced() -> Iterator[None]:
    """Within it, what is written to the standard output is lost.

    MNN 3.6.1 writes there what the processor has when it is imported, and the precision when a file is opened. It can
    go when `python -c "import MNN"` prints nothing.
    """
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


with _silenced():
    import MNN
    import MNN.nn


def open_session(deployment: "Deployment", *, threads: int, precision: str, device: str) -> "MnnSession":
    require("mnn", "device", device, ["cpu"])
    require("mnn", "precision", precision, ["float32"])
    return MnnSession(deployment.mnn_file, threads)


class MnnSession:
    name = "mnn"

    def __init__(self, file: Path, threads: int):
        options = {"backend": "CPU", "precision": "high", "numThread": threads}  # high is float32
        with _silenced():
            self._runtime = MNN.nn.create_runtime_manager((options,))
            self._module = MNN.nn.load_module_from_file(str(file), [], [], runtime_manager=self._runtime)
        self._opened = {"device": "cpu", "threads": threads, "precision": "float32"}
        self.input_names: list[str] = list(self._module.get_info()["inputNames"])

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        images = [np.ascontiguousarray(inputs[name]) for name in self.input_names]
        given = [MNN.expr.const(image, list(image.shape), MNN.expr.NCHW) for image in images]
        outputs = self._module.forward(given)
        return [np.array(MNN.expr.convert(output, MNN.expr.NCHW).read()) for output in outputs]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": MNN.version(), **self._opened}
