"""Channels of an activation brought to like ranges, which one scale for the tensor can serve."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from segslim.gram import Array
from segslim.onnx_tools import attribute, copied, session_of
from segslim.quantization.graph import Graph, folded_copy

#: Act on each channel by itself, and pass a positive factor on.
HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize")
SMALLEST = 1e-3  # of the largest channel: one that is almost never used is not blown up without bounds


def equalize(model: ModelProto, images: Sequence[np.ndarray], threads: int) -> dict[str, Array]:
    """The initializers of a float graph with which it computes the same, from channels of like ranges.

    Cross-layer equalization (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
    2019): a channel is divided by a factor where a batch norm or convolution makes it, and multiplied by it where the
    next convolution alone reads it. Weights have a scale per output channel, so it is activations that need it: the
    factor is sqrt(largest activation / largest weight that reads it) (Xiao et al., SmoothQuant, ICML 2023), its
    geometric mean over the channels 1.

    Args:
        model: the graph, of one input, batch norm not folded; it is not changed.
        images: inputs 1,3,H,W, float32.
        threads: of ONNX Runtime.
    """
    graph = Graph.from_model(model)
    folded = folded_copy(model)
    engines_weights = Graph.from_model(folded)
    readers = {
        node.input[0]: (maker, node)
        for node in graph.nodes
        if node.op_type == "Conv" and _is_own(graph, node.input[1]) and (maker := _maker(graph, node)) is not None
    }
    largest = _largest(folded, list(readers), images, threads)
    values: dict[str, Array] = {}

    def scaled(name: str, factor: Array, axis: int) -> None:
        array = values.get(name, graph.array(name))
        shape = [-1 if at == axis else 1 for at in range(array.ndim)]
        values[name] = (array * factor.reshape(shape)).astype(array.dtype)

    for tensor, (maker, reader) in readers.items():
        weight = engines_weights.array(reader.input[1])
        depthwise = weight.shape[1] == 1 and attribute(reader, "group", 1) == len(largest[tensor])
        if depthwise:
            reach = np.abs(weight).reshape(len(largest[tensor]), -1).max(1)
        elif attribute(reader, "group", 1) == 1:
            reach = np.abs(weight).max(axis=(0, 2, 3))
        else:
            continue
        factor = np.sqrt(_bounded(largest[tensor]) / _bounded(reach))
        factor /= np.exp(np.log(factor).mean())
        # a batch norm's scale and shift, or a convolution's weight and bias
        for name in maker.input[1:3]:
            scaled(name, 1 / factor, 0)
        if depthwise:
            scaled(reader.input[1], factor.repeat(len(weight) // len(factor)), 0)
        else:
            scaled(reader.input[1], factor, 1)
    return values


def _maker(graph: Graph, reader: NodeProto) -> NodeProto | None:
    """The batch norm or convolution that scales the channels that `reader` alone reads, if there is one."""
    tensor = reader.input[0]
    while graph.only_consumer(tensor) is not None and (node := graph.producers.get(tensor)) is not None:
        if node.op_type in ("BatchNormalization", "Conv"):
            return node if all(_is_own(graph, name) for name in node.input[1:3]) else None
        if node.op_type not in HOMOGENEOUS:
            return None
        tensor = node.input[0]
    return None


def _is_own(graph: Graph, name: str) -> bool:
    return graph.is_constant(name) and len(graph.consumers[name]) == 1


def _bounded(largest: Array) -> Array:
    top = max(float(largest.max()), float(np.finfo(np.float32).tiny))
    return np.maximum(largest.astype(np.float64), SMALLEST * top)


def _largest(
    model: ModelProto, tensors: Sequence[str], images: Sequence[np.ndarray], threads: int
) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel of N,C,H,W tensors."""
    if not tensors:
        return {}
    watched = copied(model)
    del watched.graph.output[:]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in tensors)
    session = session_of(watched, threads)
    found: dict[str, np.ndarray] = {}
    for image in images:
        for name, array in zip(tensors, session.run(list(tensors), {model.graph.input[0].name: image}), strict=True):
            maxima = np.abs(array).max(axis=(0, 2, 3))
            found[name] = np.maximum(found.get(name, maxima), maxima)
    return found
