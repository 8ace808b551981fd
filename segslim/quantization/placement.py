"""Which nodes of a graph run on integers, which tensors are int8 for them and share a scale, what stays float and why.

A tensor is int8 where something computes from it on integers. What passes values on (pooling, resizing, concat) takes
its input as int8 when its output is, with the same scale, so that nothing turns to float between two integer kernels.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from segslim.quantization.graph import Graph

MULTIPLIES = ("Conv", "ConvTranspose", "MatMul", "Gemm")
COMBINES = ("Add", "Mul")  # of two activations
PASSES = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Upsample", "Concat", "Transpose"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Gather", "Tile", "Expand"),
)
RECTIFIES = ("Relu", "Clip")  # part of the kernel before it; after something that passes values on, it passes them too
# element by element, by an engine as the last part of the kernel before it, in float
POSTPROCESSES = ("LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Elu", "Gelu", "BatchNormalization")


@dataclass(frozen=True)
class StayedFloat:
    """A node that computes in float32, named by its first output, and why."""

    tensor: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """`groups` maps each int8 tensor to the name of its group, whose members have one scale; `integer` are the first
    outputs of the nodes that compute from int8 tensors; `floats` says what does not."""

    groups: dict[str, str]
    integer: frozenset[str]
    floats: tuple[StayedFloat, ...]

    def members(self, group: str) -> list[str]:
        return [tensor for tensor, of in self.groups.items() if of == group]


def place(model: ModelProto, keep_float: Collection[str] = ()) -> Placement:
    """Decides for each node of `model`, whose batch norms are folded; `keep_float` names weights of layers to leave."""
    return _Placing(Graph.of(model.graph), frozenset(keep_float)).placement()


def activations(node: NodeProto, graph: Graph) -> list[str]:
    """The inputs of a node that are computed, without constants, biases and sizes."""
    if node.op_type in MULTIPLIES:
        return [name for name in node.input[:2] if not graph.is_constant(name)]
    if node.op_type in COMBINES or node.op_type == "Concat":
        return [name for name in node.input if name and not graph.is_constant(name)]
    return [name for name in node.input[:1] if not graph.is_constant(name)]


class _Placing:
    def __init__(self, graph: Graph, keep_float: frozenset[str]):
        self._graph = graph
        self._keep = keep_float
        self._parents: dict[str, str] = {}  # union-find over int8 tensors
        self._integer: set[str] = set()
        self._pending: list[str] = []

    def placement(self) -> Placement:
        for node in self._graph.nodes:
            if node.op_type in MULTIPLIES and not self._kept(node):
                self._make_integer(node)
        while self._pending:
            self._look_behind(self._pending.pop())
        groups = {tensor: self._root(tensor) for tensor in self._parents}
        return Placement(groups, frozenset(self._integer), tuple(self._floats()))

    def _kept(self, node: NodeProto) -> bool:
        return not self._keep.isdisjoint(node.input)

    def _make_integer(self, node: NodeProto) -> None:
        self._integer.add(node.output[0])
        for name in activations(node, self._graph):
            self._want(name)

    def _want(self, tensor: str) -> None:
        if tensor not in self._parents:
            self._parents[tensor] = tensor
            self._pending.append(tensor)

    def _look_behind(self, tensor: str) -> None:
        """`tensor` is int8: so is, where it can be, what it is made of."""
        node = self._graph.producers.get(tensor)
        if node is not None and node.op_type in (*RECTIFIES, *POSTPROCESSES):
            before = self._behind_activations(node)
            if before is not None and before.op_type not in PASSES:
                node = before
            elif node.op_type not in RECTIFIES:
                return
        if node is None or self._kept(node):
            return
        if node.op_type in (*PASSES, *RECTIFIES) and len(node.output) >= 1:
            self._make_integer(node)
            for name in (*activations(node, self._graph), *node.output):
                self._want(name)
                self._unite(name, tensor)
        elif node.op_type in COMBINES and len(activations(node, self._graph)) == 2:
            self._make_integer(node)

    def _behind_activations(self, node: NodeProto | None) -> NodeProto | None:
        """The node whose kernel `node` is the end of, where that kernel's result is read by nothing else."""
        while node is not None and node.op_type in (*RECTIFIES, *POSTPROCESSES):
            if self._graph.only_consumer(node.input[0]) is None:
                return None
            node = self._graph.producers.get(node.input[0])
        return node

    def _root(self, tensor: str) -> str:
        while self._parents[tensor] != tensor:
            self._parents[tensor] = tensor = self._parents[self._parents[tensor]]
        return tensor

    def _unite(self, one: str, other: str) -> None:
        self._parents[self._root(one)] = self._root(other)

    def _floats(self) -> Iterator[StayedFloat]:
        for node in self._graph.nodes:
            reason = self._reason(node)
            if reason is not None:
                yield StayedFloat(node.output[0], node.op_type, reason)

    def _reason(self, node: NodeProto) -> str | None:
        if node.output[0] in self._integer:
            return None
        if self._kept(node):
            return "named by compress.keep_float"
        if node.op_type in RECTIFIES and self._behind_integer(node):
            return None
        if node.op_type in POSTPROCESSES and self._behind_integer(node):
            return "in float as the end of the integer kernel before it"
        known = (*MULTIPLIES, *COMBINES, *PASSES, *RECTIFIES)
        if node.op_type in known:
            return "nothing after it computes on integers"
        return "has no integer kernel"

    def _behind_integer(self, node: NodeProto) -> bool:
        before = self._behind_activations(node)
        return before is not None and before.output[0] in self._integer
