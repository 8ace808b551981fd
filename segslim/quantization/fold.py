"""Batch norm into the convolution before it, so that what is quantized is what the kernels multiply by."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from segslim.quantization.graph import Graph, attribute, set_initializer


def fold_batch_norm(model: ModelProto, scales: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Folds each BatchNormalization into the Conv or ConvTranspose that it alone reads, in place.

    `scales` are those of weights, one an output channel, as fake-quantize layers learned them before the batch norm;
    those of the folded weights are returned: a channel multiplied by f has its scale multiplied by |f|, and the same
    integers. Batch norm that stands elsewhere stays.
    """
    found = Graph.of(model.graph)
    folded = dict(scales or {})
    for convolution, norm in foldable(found):
        factor = _fold(model, found, convolution, norm)
        weight = convolution.input[1]
        if weight in folded:
            folded[weight] = folded[weight] * np.abs(factor)
        model.graph.node.remove(norm)
    _drop_unread(model)
    return folded


def foldable(found: Graph) -> list[tuple[NodeProto, NodeProto]]:
    """Each Conv or ConvTranspose that a BatchNormalization alone reads, and that."""
    norms = [node for node in found.nodes if node.op_type == "BatchNormalization"]
    pairs = [(found.producers.get(norm.input[0]), norm) for norm in norms]
    return [(before, norm) for before, norm in pairs if before is not None and _foldable(before, found)]


def output_axis(convolution: NodeProto) -> int:
    """The axis of a weight along which its output channels lie."""
    return 1 if convolution.op_type == "ConvTranspose" else 0


def _foldable(convolution: NodeProto, found: Graph) -> bool:
    if convolution.op_type not in ("Conv", "ConvTranspose") or not found.is_constant(convolution.input[1]):
        return False
    if convolution.op_type == "ConvTranspose" and attribute(convolution, "group", 1) != 1:
        return False
    alone = found.only_consumer(convolution.output[0]) is not None
    return alone and len(found.consumers[convolution.input[1]]) == 1  # a shared weight belongs to others as well


def _fold(model: ModelProto, found: Graph, convolution: NodeProto, norm: NodeProto) -> np.ndarray:
    scale, shift, mean, variance = (found.array(name).astype(np.float64) for name in norm.input[1:5])
    factor = scale / np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))  # type: ignore[arg-type]
    weight = found.array(convolution.input[1])
    shape = [1] * weight.ndim
    shape[output_axis(convolution)] = -1
    has_bias = len(convolution.input) == 3
    bias = found.array(convolution.input[2]) if has_bias else np.zeros(len(factor))
    name = convolution.input[1] + ".folded_bias"
    set_initializer(model.graph, convolution.input[1], (weight * factor.reshape(shape)).astype(np.float32))
    set_initializer(model.graph, name, ((bias - mean) * factor + shift).astype(np.float32))
    convolution.input[:] = [*convolution.input[:2], name]
    convolution.output[0] = norm.output[0]
    return np.asarray(factor)


def _drop_unread(model: ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    for position in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[position].name not in read:
            del model.graph.initializer[position]
