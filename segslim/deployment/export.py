"""Exports a network for deployment, and checks what it wrote against the network itself."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from segslim.deployment.conversion import convert
from segslim.deployment.simplify import simplify
from segslim.deployment.tracing import save_inference_model


def export_onnx(network: Any, file: Path, input_shape: Sequence[int | None], output: str = "logits") -> None:
    """Writes `network` as the ONNX file `file`: input "x" N,C,H,W float32, one output named as `output` says.

    `output` is "logits" or "softmax" (N,C,H,W float32), or "argmax" (class ids N,H,W int32). None in `input_shape` is a
    dynamic size. Parameters are initializers under their Paddle names, and batch norm is not folded into convolutions.
    The file is not compared with the network: `export` does that. Raises UserError if the network cannot be converted.
    """
    with tempfile.TemporaryDirectory() as folder:
        model_file, params_file = save_inference_model(network, Path(folder), input_shape, output)
        convert_saved(model_file, params_file, file, type(network).__name__, output)


def convert_saved(model_file: Path, params_file: Path, file: Path, network_name: str, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw_file = Path(folder, "raw.onnx")
        convert(model_file, params_file, raw_file, network_name)
        onnx.save(simplify(onnx.load(raw_file), output), file)
