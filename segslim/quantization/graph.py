"""Lookups in an ONNX graph, and batch norm folded into the convolution before it.

Engines multiply by the folded kernel, so its values are the ones to quantize.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from segslim.onnx_tools import attribute, copied


@dataclass(frozen=True)
class Graph:
    """Producers and consumers by tensor, and constants by name. Adding or removing nodes makes it out of date."""

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    outputs: frozenset[str]
    producers: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]

    @staticmethod
    def from_model(model: ModelProto) -> "Graph":
        consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):  # a node that reads a tensor twice is one consumer
                consumers[name].append(node)
        return Graph(
            nodes=list(model.graph.node),
            constants={tensor.name: tensor for tensor in model.graph.initializer},
            outputs=frozenset(output.name for output in model.graph.output),
            producers={name: node for node in model.graph.node for name in node.output},
            consumers=dict(consumers),
        )

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def only_consumer(self, name: str) -> NodeProto | None:
        """The single node that reads `name`, unless `name` is an output of the graph as well."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def array(self, name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(self.constants[name]))


def set_initializer(graph: GraphProto, name: str, array: np.ndarray) -> None:
    """Sets the value of the constant `name`, which is added where the graph does not have it."""
    tensor = numpy_helper.from_array(np.array(array, order="C"), name)
    for existing in graph.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def drop_unread_initializers(graph: GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in read:
            del graph.initializer[position]


def output_axis(convolution: NodeProto) -> int:
    """The axis of a convolution's weight along which its output channels lie."""
    return 1 if convolution.op_type == "ConvTranspose" else 0


def along_axis(vector: np.ndarray, axis: int | None, dimensions: int) -> np.ndarray:
    """A vector shaped to broadcast along `axis` of an array of so many dimensions; as it is for None."""
    if axis is None or not vector.ndim:
        return vector
    return vector.reshape([-1 if each == axis else 1 for each in range(dimensions)])


def foldable_pairs(graph: Graph) -> list[tuple[NodeProto, NodeProto]]:
    """Each Conv or ConvTranspose whose output only a BatchNormalization reads, with that node."""
    pairs = []
    for norm in graph.nodes:
        convolution = graph.producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if convolution is None or convolution.op_type not in ("Conv", "ConvTranspose"):
            continue
        weight = convolution.input[1]
        # a grouped transposed convolution has no single axis of output channels
        grouped = convolution.op_type == "ConvTranspose" and attribute(convolution, "group", 1) != 1
        # a shared weight or output has other readers, which must not see the factor
        shared = len(graph.consumers[weight]) > 1 or graph.only_consumer(convolution.output[0]) is None
        if graph.is_constant(weight) and not grouped and not shared:
            pairs.append((convolution, norm))
    return pairs


def fold_batch_norm(model: ModelProto, weight_scales: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Folds each BatchNormalization into the Conv or ConvTranspose whose output it alone reads, in place.

    `weight_scales` has one scale per output channel, by the weight's name, as fake-quantize layers learned them on the
    unfolded weights. The scales of the folded weights are returned: a channel multiplied by f has its scale multiplied
    by |f|, so its integers stay the same up to sign.
    """
    graph = Graph.from_model(model)
    folded = dict(weight_scales or {})
    for convolution, norm in foldable_pairs(graph):
        scale, shift, mean, variance = (graph.array(name).astype(np.float64) for name in norm.input[1:5])
        factor = scale / np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
        name = convolution.input[1]
        weight = graph.array(name)
        bias = graph.array(convolution.input[2]) if len(convolution.input) == 3 else np.zeros(len(factor))
        weight = weight * along_axis(factor, output_axis(convolution), weight.ndim)
        set_initializer(model.graph, name, weight.astype(np.float32))
        # the bias gets a name of its own: other layers may share the constant that it was
        set_initializer(model.graph, f"{name}.folded_bias", ((bias - mean) * factor + shift).astype(np.float32))
        convolution.input[:] = [*convolution.input[:2], f"{name}.folded_bias"]
        convolution.output[0] = norm.output[0]
        if name in folded:
            folded[name] = folded[name] * np.abs(factor)
        model.graph.node.remove(norm)
    drop_unread_initializers(model.graph)
    return folded


def folded_copy(model: ModelProto) -> ModelProto:
    """A copy of `model` with batch norm folded: the graph whose tensors ranges are about."""
    copy = copied(model)
    fold_batch_norm(copy)
    return copy
