"""OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from segslim.deployment.engines import NodeTime, require

if TYPE_CHECKING:
    from segslim.deployment.deployment import Deployment

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16, "float16": openvino.Type.f16}
CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}


def precisions(device: str = "cpu") -> list[str]:
    """The float types that the device has kernels for."""
    capabilities = openvino.Core().get_property(device.upper(), properties.device.capabilities)
    return [name for name in PRECISIONS if CAPABILITIES.get(name, "FP32") in capabilities]


def runs_int8() -> bool:
    return "INT8" in openvino.Core().get_property("CPU", properties.device.capabilities)


def open_session(deployment: "Deployment", *, threads: int, precision: str, device: str) -> "OpenVinoSession":
    core = openvino.Core()
    require("openvino", "device", device, [name for name in ("cpu", "gpu") if name.upper() in core.available_devices])
    require("openvino", "precision", precision, precisions(device))
    return OpenVinoSession(core, deployment.openvino_file, threads, precision, device)


def node_times(
    deployment: "Deployment", inputs: Mapping[str, np.ndarray], runs: int, *, threads: int, precision: str, device: str
) -> list[NodeTime]:
    config = {
        properties.enable_profiling: True,
        hint.inference_precision: PRECISIONS[precision],
        properties.inference_num_threads: threads,
    }
    model = openvino.Core().compile_model(str(deployment.openvino_file), device.upper(), config)
    request = model.create_infer_request()
    took: dict[str, float] = {}
    for _ in range(runs):
        request.infer(dict(inputs))
        for node in request.get_profiling_info():
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                took[node.node_name] = min(node.real_time.total_seconds() * 1e3, took.get(node.node_name, np.inf))
    found = []
    for node in model.get_runtime_model().get_ordered_ops():
        if node.get_friendly_name() in took:
            about = node.get_rt_info()
            names = about["originalLayersNames"].astype(str).split(",")
            found.append(NodeTime(tuple(names), about["layerType"].astype(str), took[node.get_friendly_name()]))
    return found


class OpenVinoSession:
    """One stream, for the least latency. `precision` is that of the computation; inputs and outputs keep theirs."""

    name = "openvino"

    def __init__(self, core: openvino.Core, file: Path, threads: int, precision: str, device: str):
        config: dict[Any, Any] = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: PRECISIONS[precision],
            properties.num_streams: 1,
        }
        if device == "cpu":
            config[properties.inference_num_threads] = threads
        self._model = core.compile_model(str(file), device.upper(), config)
        self._request = self._model.create_infer_request()
        self._opened = {"device": device, "threads": threads, "precision": precision}
        self.input_names = [port.any_name for port in self._model.inputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return [results[port] for port in self._model.outputs]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": openvino.__version__.split("-")[0], **self._opened}
