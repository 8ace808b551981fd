"""Paddle Inference, on oneDNN on the CPU."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import require
from segslim.paddle_compat import import_paddle

GPU_MEMORY_POOL_MB = 100


def open_session(deployment: Deployment, *, threads: int, precision: str, device: str) -> "PaddleSession":
    paddle = import_paddle()
    require("paddle", "device", device, ["cpu", "gpu"] if paddle.device.is_compiled_with_cuda() else ["cpu"])
    require("paddle", "precision", precision, ["float32"])
    return PaddleSession(inference_config(*deployment.paddle_files, threads, device), threads, device)


def runs_int8() -> bool:
    """It simulates int8 on a CPU, in ten times the time of float32."""
    return False


def inference_config(model: Path, params: Path, threads: int, device: str) -> Any:
    """The `paddle.inference.Config` for float32."""
    config = import_paddle().inference.Config(str(model), str(params))
    config.disable_glog_info()
    config.switch_ir_optim(True)
    config.enable_memory_optim()
    if device == "gpu":
        config.enable_use_gpu(GPU_MEMORY_POOL_MB, 0)
        return config
    config.disable_gpu()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads)
    if model.suffix == ".json":
        # Paddle 3.3.1 uses this executor anyway; without the call it looks for the results of memory optimization where
        # the old one leaves them ("Not find predictor_id 0 and pass_name memory_optimize_pass"). It can go when a
        # session opens without it.
        config.enable_new_executor(True)
        # oneDNN keeps the fused convolutions and matmuls, where nearly all the time goes, and loses the rest. Paddle
        # 3.3.1 stores the scale of an interpolation as doubles, which its oneDNN operators do not read (Paddle issue
        # 79749: "ConvertPirAttribute2RuntimeAttribute not support ArrayAttribute<DoubleAttribute>"). Without oneDNN
        # altogether Fast-SCNN takes 3 times as long. It can go when Fast-SCNN runs without it.
        config.delete_pass("onednn_placement_pass")
    return config


@contextmanager
def _threads_restored() -> Iterator[None]:
    """After it, Paddle's own operators run on as many threads as before.

    A predictor of Paddle 2.6.2 and 3.3.1 sets its number of threads for the whole process, when it is made and at every
    run, and another number sums in another order: a training that goes on after an evaluation then differs in its last
    bits. It can go when a dygraph network's output stays the same, bit by bit, after a predictor has run.
    """
    try:
        yield
    finally:
        import_paddle().base.core.set_num_threads(
            int(os.environ["OMP_NUM_THREADS"])
        )  # Paddle sets both when it is imported


class PaddleSession:
    """The engine that PaddleSeg's own deployment scripts use."""

    name = "paddle"

    def __init__(self, config: Any, threads: int, device: str):
        with _threads_restored():
            self._predictor = import_paddle().inference.create_predictor(config)
        self._opened = {"device": device, "threads": threads, "precision": "float32"}
        self.input_names: list[str] = self._predictor.get_input_names()
        self._outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        for name in self.input_names:
            array = np.ascontiguousarray(inputs[name])
            handle = self._predictor.get_input_handle(name)
            handle.reshape(array.shape)
            handle.copy_from_cpu(array)
        with _threads_restored():
            self._predictor.run()
        return [output.copy_to_cpu() for output in self._outputs]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": import_paddle().__version__, **self._opened}
