"""What the other files here ask of an ONNX graph."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Graph:
    """Producers and consumers by tensor, and constants by name; made anew when nodes are added or removed."""

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    outputs: frozenset[str]
    producers: dict[str, NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[NodeProto]] = field(default_factory=dict)

    @staticmethod
    def of(graph: GraphProto) -> "Graph":
        consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                consumers[name].append(node)
        return Graph(
            nodes=list(graph.node),
            constants={tensor.name: tensor for tensor in graph.initializer},
            outputs=frozenset(output.name for output in graph.output),
            producers={name: node for node in graph.node for name in node.output},
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


def attribute(node: NodeProto, name: str, default: object) -> object:
    """The value of an attribute, or what it is where the node does not have it."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_initializer(graph: GraphProto, name: str, array: np.ndarray) -> None:
    """Adds a constant, or gives one that is there another value."""
    tensor = numpy_helper.from_array(np.array(array, order="C"), name)
    for known in graph.initializer:
        if known.name == name:
            known.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)
