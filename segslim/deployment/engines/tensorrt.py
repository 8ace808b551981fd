"""TensorRT: float networks through Paddle Inference; int8 as well, where Paddle 2.6 wrote it in its own format, and
else by its ONNX file through ONNX Runtime.

It needs a GPU, and a Paddle or an ONNX Runtime that was made with TensorRT. Building an engine takes minutes; it is
kept in the deployment's `engine_cache`, and built again only where the GPU or TensorRT is another.
"""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import require
from segslim.deployment.engines.paddle_inference import PaddleSession, inference_config
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle

PRECISIONS = ("float32", "float16")
PROVIDER = "TensorrtExecutionProvider"
WORKSPACE_BYTES = 1 << 30
SMALLEST_SUBGRAPH = 3  # operators: a smaller piece is faster left to Paddle than handed over and back
# (height, width) between which a network of dynamic size may be run, and for which its kernels are chosen
DYNAMIC_SIZES = {"min": (64, 64), "opt": (512, 1024), "max": (1024, 2048)}

Shape = tuple[int, ...]


def precisions() -> list[str]:
    return list(PRECISIONS)


def runs_int8() -> bool:
    """By ONNX Runtime, or by a Paddle that writes its own int8 models and runs them on a GPU."""
    return PROVIDER in onnxruntime.get_available_providers() or _gpu_paddle().startswith("2.")


def _gpu_paddle() -> str:
    """The version of an installed Paddle made for GPUs; importing it to ask takes seconds."""
    try:
        return importlib.metadata.version("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        return ""


def open_session(deployment: Deployment, *, threads: int, precision: str, device: str) -> Any:
    """A session on the GPU, whatever `device` says: TensorRT has no other."""
    require("tensorrt", "precision", precision, list(PRECISIONS))
    is_int8 = deployment.precision.is_int8
    if is_int8 and deployment.paddle_int8 is None:
        return Int8Session(deployment, precision)
    paddle = import_paddle()
    if not paddle.device.is_compiled_with_cuda():
        raise UserError("engine tensorrt needs a Paddle made for GPUs; install the gpu group, or choose openvino")
    files = (deployment.paddle_int8 if is_int8 else None) or deployment.paddle_files
    config = inference_config(*files, threads, "gpu")
    configure(config, deployment, precision, paddle.inference.PrecisionType)
    return PaddleSession(config, threads, "gpu")


def configure(config: Any, deployment: Deployment, precision: str, types: Any) -> None:
    """Sets up a paddle.inference.Config; `types` is paddle.inference.PrecisionType."""
    config.set_optim_cache_dir(str(deployment.engine_cache))
    mode = types.Half if precision == "float16" else types.Float32
    config.enable_tensorrt_engine(
        workspace_size=WORKSPACE_BYTES,
        max_batch_size=1,
        min_subgraph_size=SMALLEST_SUBGRAPH,
        precision_mode=types.Int8 if deployment.precision.is_int8 else mode,
        use_static=True,  # keeps the engine in the cache
        use_calib_mode=False,  # the scales of an int8 model are in it
    )
    shapes = [{"x": list(shape)} for shape in input_shapes(deployment).values()]
    config.set_trt_dynamic_shape_info(shapes[0], shapes[2], shapes[1])  # min, max, opt


def provider_options(deployment: Deployment, precision: str) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT for an int8 deployment; what is not int8 is computed in `precision`."""
    shapes = {kind: "x:" + "x".join(map(str, shape)) for kind, shape in input_shapes(deployment).items()}
    return {
        "trt_int8_enable": "True",
        "trt_fp16_enable": str(precision == "float16"),
        "trt_max_workspace_size": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(deployment.engine_cache),
        **{f"trt_profile_{kind}_shapes": shape for kind, shape in shapes.items()},
    }


def input_shapes(deployment: Deployment) -> dict[str, Shape]:
    """The least, the usual and the largest input, N,C,H,W: all the same for a deployment of fixed size."""
    if deployment.input_size is None:
        return {kind: (1, deployment.channels, *size) for kind, size in DYNAMIC_SIZES.items()}
    width, height = deployment.input_size
    return dict.fromkeys(DYNAMIC_SIZES, (1, deployment.channels, height, width))


class Int8Session:
    """An int8 ONNX file, in the form "int8" (compress.activations=int8), by ONNX Runtime's TensorRT."""

    name = "tensorrt"

    def __init__(self, deployment: Deployment, precision: str):
        if PROVIDER not in onnxruntime.get_available_providers():
            raise UserError("engine tensorrt needs onnxruntime-gpu with TensorRT for int8; choose openvino")
        options = provider_options(deployment, precision)
        providers = [(PROVIDER, options), "CUDAExecutionProvider", "CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(deployment.onnx_file), providers=providers)
        self._opened = {"device": "gpu", "threads": 1, "precision": precision}
        self.input_names = [tensor.name for tensor in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(None, dict(inputs))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": onnxruntime.__version__, **self._opened}
