"""Which nodes of a graph run on integers, which tensors are int8 and share a scale, what stays float and why.

A tensor is int8 where something computes from it on integers, and where a layer with weights gives it: ONNX Runtime
has an integer kernel for a layer only if both sides are int8, and OpenVINO loses nothing by it. A node that passes
values on (pooling, concat) takes its input as int8 when its output is, with the same scale: nothing turns to float
between two integer kernels. Both engines interpolate in float, so the two sides of a Resize have a scale each: with one
for both, a rectifier before it would take the zero point of a concat's signed input, and its layer no integer kernel.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import permutations

from onnx import ModelProto, NodeProto

from segslim.onnx_tools import attribute
from segslim.quantization.graph import Graph

MATMUL_OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
ELEMENTWISE_OPS = ("Add", "Mul")  # of two activations
PASSTHROUGH_OPS = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Upsample", "Concat", "Transpose"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Gather", "Tile", "Expand"),
)
POINTWISE_OPS = ("Add", "Mul", "Div", "Clip", "Relu", "HardSigmoid", "Sigmoid")  # with constants beside
RECTIFIERS = ("Relu", "Clip")  # part of the kernel before them; behind a pass-through they are one themselves
# applied in float as the last part of the kernel before them
EPILOGUES = ("LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Elu", "Gelu", "BatchNormalization")


@dataclass(frozen=True)
class FloatNode:
    """A node that computes in float32, named by its first output, and why."""

    tensor: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """`groups` maps each int8 tensor to the name of its group, whose members share one scale; `integer` are the first
    outputs of the nodes that compute from int8 tensors; `floats` are the nodes that do not."""

    groups: dict[str, str]
    integer: frozenset[str]
    floats: tuple[FloatNode, ...]

    def members(self, group: str) -> list[str]:
        return [tensor for tensor, its_group in self.groups.items() if its_group == group]


def place_integers(model: ModelProto, keep_float: Collection[str] = ()) -> Placement:
    """Decides for each node of `model`, whose batch norms are folded; `keep_float` names weights of layers to leave."""
    return _Placing(Graph.from_model(model), frozenset(keep_float)).placement()


def activations(node: NodeProto, graph: Graph) -> list[str]:
    """The inputs of a node that are computed, without constants, biases and sizes."""
    if node.op_type in MATMUL_OPS:
        inputs = node.input[:2]
    elif node.op_type in ELEMENTWISE_OPS or node.op_type == "Concat":
        inputs = node.input[:]
    else:
        inputs = node.input[:1]
    return [name for name in inputs if name and not graph.is_constant(name)]


def _interpolates(node: NodeProto) -> bool:
    return node.op_type in ("Resize", "Upsample") and attribute(node, "mode", b"nearest") != b"nearest"


class _Placing:
    """Starts at the layers with weights and walks from each int8 tensor to the node that makes it."""

    def __init__(self, graph: Graph, keep_float: frozenset[str]):
        self._graph = graph
        self._keep_float = keep_float
        self._parents: dict[str, str] = {}  # union-find over int8 tensors
        self._integer: set[str] = set()
        self._pending: list[str] = []

    def placement(self) -> Placement:
        for node in self._graph.nodes:
            if node.op_type in MATMUL_OPS and not self._kept_float(node):
                self._make_integer(node)
                result = self._behind_rectifiers(node.output[0])
                if result not in self._graph.outputs:
                    self._make_int8(result)
        while self._pending:
            self._extend_to_producer(self._pending.pop())
        groups = {tensor: self._root(tensor) for tensor in self._parents}
        reasons = [(node, self._reason(node)) for node in self._graph.nodes]
        floats = [FloatNode(node.output[0], node.op_type, reason) for node, reason in reasons if reason is not None]
        return Placement(groups, frozenset(self._integer), tuple(floats))

    def _kept_float(self, node: NodeProto) -> bool:
        return not self._keep_float.isdisjoint(node.input)

    def _make_integer(self, node: NodeProto) -> None:
        self._integer.add(node.output[0])
        for name in activations(node, self._graph):
            self._make_int8(name)

    def _make_int8(self, tensor: str) -> None:
        if tensor not in self._parents:
            self._parents[tensor] = tensor
            self._pending.append(tensor)

    def _extend_to_producer(self, tensor: str) -> None:
        """`tensor` is int8: its producer computes on integers where it can, and so does what that reads."""
        node = self._graph.producers.get(tensor)
        if node is not None and node.op_type in (*RECTIFIERS, *EPILOGUES):
            kernel = self._kernel_before(node)
            if kernel is not None and kernel.op_type not in PASSTHROUGH_OPS:
                node = kernel
            elif node.op_type not in RECTIFIERS:
                return  # a sigmoid without a kernel to be the end of: engines compute it in float
        if node is None or self._kept_float(node):
            return
        if _interpolates(node):
            self._make_int8(node.input[0])
        elif node.op_type in (*PASSTHROUGH_OPS, *RECTIFIERS):
            self._make_integer(node)
            for name in (*activations(node, self._graph), *node.output):
                self._make_int8(name)
                self._parents[self._root(name)] = self._root(tensor)
        elif node.op_type in ELEMENTWISE_OPS and self._joins_two(node):
            self._make_integer(node)

    def _joins_two(self, node: NodeProto) -> bool:
        """Whether it has two activations, and neither is made of the other, element by element: hard swish or swish of
        their parts, as some frameworks write them, would lose twice, if it were rounded in between.
        """
        names = activations(node, self._graph)
        if len(names) != 2:
            return False
        for one, other in permutations(names):
            while (maker := self._graph.producers.get(other)) is not None and maker.op_type in POINTWISE_OPS:
                inputs = activations(maker, self._graph)
                if len(inputs) != 1:
                    break
                (other,) = inputs
                if other == one:
                    return False
        return True

    def _behind_rectifiers(self, tensor: str) -> str:
        """What the kernel that computes `tensor` writes."""
        reader = self._graph.only_consumer(tensor)
        while reader is not None and reader.op_type in RECTIFIERS:
            tensor = reader.output[0]
            reader = self._graph.only_consumer(tensor)
        return tensor

    def _kernel_before(self, node: NodeProto | None) -> NodeProto | None:
        """The node whose kernel `node` is the end of, where nothing else reads that kernel's result."""
        while node is not None and node.op_type in (*RECTIFIERS, *EPILOGUES):
            if self._graph.only_consumer(node.input[0]) is None:
                return None
            node = self._graph.producers.get(node.input[0])
        return node

    def _root(self, tensor: str) -> str:
        while self._parents[tensor] != tensor:
            self._parents[tensor] = tensor = self._parents[self._parents[tensor]]
        return tensor

    def _reason(self, node: NodeProto) -> str | None:
        """Why a node stays float; None for one that does not."""
        if node.output[0] in self._integer:
            return None
        if self._kept_float(node):
            return "named by compress.keep_float"
        kernel = self._kernel_before(node)
        in_integer_kernel = kernel is not None and kernel.output[0] in self._integer
        if node.op_type in RECTIFIERS and in_integer_kernel:
            return None
        if node.op_type in EPILOGUES and in_integer_kernel:
            return "in float as the end of the integer kernel before it"
        if _interpolates(node):
            return "interpolates in float"
        if node.op_type in (*MATMUL_OPS, *ELEMENTWISE_OPS, *PASSTHROUGH_OPS, *RECTIFIERS):
            return "nothing after it computes on integers"
        return "has no integer kernel"
