"""ONNX Runtime: float32 throughout, except where the file itself quantizes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from segslim.deployment.engines import NodeTime, require
from segslim.onnx_tools import session_of

if TYPE_CHECKING:
    from segslim.deployment.deployment import Deployment

PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def open_in_float(deployment: "Deployment", threads: int) -> "OnnxRuntimeSession":
    """Each node by itself, as the file has it: what lies between DequantizeLinear and QuantizeLinear is float.

    That is what an int8 file means, on every processor; the optimizations would make integer kernels of it.
    """
    return OnnxRuntimeSession(deployment.onnx_file, threads, "cpu", optimized=False)


def open_session(deployment: "Deployment", *, threads: int, precision: str, device: str) -> "OnnxRuntimeSession":
    installed = onnxruntime.get_available_providers()
    require("onnxruntime", "device", device, [name for name, provider in PROVIDERS.items() if provider in installed])
    require("onnxruntime", "precision", precision, ["float32"])
    return OnnxRuntimeSession(deployment.onnx_file, threads, device)


def node_times(
    deployment: "Deployment", inputs: Mapping[str, np.ndarray], runs: int, *, threads: int, precision: str, device: str
) -> list[NodeTime]:
    with TemporaryDirectory() as folder:
        session = session_of(deployment.onnx_file, threads, True, PROVIDERS[device], Path(folder, "profile"))
        for _ in range(runs):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, NodeTime] = {}
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") != "Node" or name == event["name"]:
            continue
        # for the tensor that it makes where it has another layout, and else for a node of the file
        names = (name, re.sub(r"^fused |_nchwc$|_token_\d+$", "", name))
        took = min(event["dur"] / 1e3, found[name].ms if name in found else np.inf)
        found[name] = NodeTime(names, event["args"]["op_name"], took)
    return list(found.values())


class OnnxRuntimeSession:
    name = "onnxruntime"

    def __init__(self, file: Path, threads: int, device: str, optimized: bool = True):
        self._session = session_of(file, threads, optimized, PROVIDERS[device])
        self._opened = {"device": device, "threads": threads, "precision": "float32"}
        self.input_names = [tensor.name for tensor in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(None, dict(inputs))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": onnxruntime.__version__, **self._opened}
