"""ncnn, on processors: float32, from model.ncnn.param and model.ncnn.bin, which give logits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ncnn
import numpy as np

from segslim.deployment.engines import require
from segslim.errors import UserError

if TYPE_CHECKING:
    from segslim.deployment.deployment import Deployment


def open_session(deployment: "Deployment", *, threads: int, precision: str, device: str) -> "NcnnSession":
    require("ncnn", "device", device, ["cpu"])
    require("ncnn", "precision", precision, ["float32"])
    return NcnnSession(deployment, threads)


def runs_int8() -> bool:
    """Its converter does not read our int8 files (see segslim.deployment.formats)."""
    return False


class NcnnSession:
    """Class ids and probabilities are made of its logits here."""

    name = "ncnn"
    input_names = ["x"]  # in0 in the file: there is one

    def __init__(self, deployment: "Deployment", threads: int):
        param, weights = deployment.ncnn_files
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = options.use_bf16_storage = False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise UserError(f"{param} has operators that ncnn {ncnn.__version__} does not: choose another engine")
        self._input, self._output = self._net.input_names()[0], self._net.output_names()[0]
        self._output_kind = deployment.output or "logits"
        self._opened = {"device": "cpu", "threads": threads, "precision": "float32"}

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        (images,) = inputs.values()
        logits = np.stack([self._logits(image) for image in images])
        if self._output_kind == "argmax":
            return [logits.argmax(axis=1).astype(np.int32)]
        if self._output_kind == "softmax":
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            return [exponentials / exponentials.sum(axis=1, keepdims=True)]
        return [logits]

    def _logits(self, image: np.ndarray) -> np.ndarray:
        with self._net.create_extractor() as extractor:
            extractor.input(self._input, ncnn.Mat(np.ascontiguousarray(image)).clone())  # which takes no copy itself
            code, output = extractor.extract(self._output)
            if code:
                raise UserError(f"ncnn cannot run an image of {image.shape[2]} x {image.shape[1]} (code {code})")
            return np.array(output)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": ncnn.__version__, **self._opened}
