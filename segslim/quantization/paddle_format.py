"""The int8 model in Paddle's own format, for Paddle Inference with TensorRT: of Paddle 2.6, the last that writes it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import ModelProto

from segslim.paddle_compat import import_paddle
from segslim.quantization.qat import fake_quantize, paddleslim_qat
from segslim.quantization.table import Table


def can_write() -> bool:
    """Paddle 3 has another program format, on which its conversion of fake-quantize layers fails (`sigmoid(): must be
    Value, but got Variable`).
    """
    return int(import_paddle().__version__.split(".")[0]) < 3


def save_int8(
    network: Any,
    table: Table,
    graph: ModelProto,
    deployed: Callable[[Any], Any],
    folder: Path,
    shape: Sequence[int | None],
    default_training: Mapping[str, Any],
) -> None:
    """Writes `folder`/model.pdmodel and model.pdiparams: int8 weights, and the scales of what layers read.

    network, changed in place: the float one; graph: its float ONNX graph; deployed: gives the layer that is saved,
    whose output is what is deployed; shape: N,C,H,W of the input, None for what is dynamic; default_training: options
    of the fake-quantize layers where `table` was not trained. Where they clip (PACT), the learned scale says so
    already, and fused batch norm is in the weights.
    """
    paddle = import_paddle()
    training = {**(table.training or default_training), "pact": False, "fuse_conv_bn": False}
    plain = dataclasses.replace(table, training=training)
    layer = deployed(fake_quantize(network, plain, graph))
    layer.eval()
    with paddle.no_grad():
        # the scales of weights that are saved are those of the last run
        layer(paddle.zeros([1, 3, *(size or 64 for size in shape[2:])]))
    folder.mkdir()
    spec = [paddle.static.InputSpec(list(shape), "float32", "x")]
    with paddle.static.scope_guard(paddle.static.Scope()):
        paddleslim_qat(training).save_quantized_model(layer, str(folder / "model"), input_spec=spec)
