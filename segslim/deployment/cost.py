"""FLOPs, parameters and bytes of an ONNX file, counted on the graph that is deployed."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from segslim.deployment.deployment import Cost
from segslim.deployment.engines import NodeTime
from segslim.errors import UserError
from segslim.onnx_graph import fold

# Which inputs of an operator are trained, where they are initializers; running mean and variance are not.
TRAINED_INPUTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
}
# The bias of a linear layer, and norms that the converter takes apart; a single number is a constant, and not trained.
ELEMENTWISE = ("Add", "Mul")

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED = (
    *("Add", "BatchNormalization", "Clip", "DequantizeLinear", "Div", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu"),
    *("Mul", "PRelu", "QuantizeLinear", "Relu", "Sigmoid", "Sub"),
)

Shape = tuple[int, ...]


def onnx_cost(file: Path, size: tuple[int, int]) -> Cost:
    """Counts the ONNX file `file` for one image of `size` (width, height).

    FLOPs are the multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul, each once, without biases. Parameters
    are the weights and biases of these, the scales and shifts of norms, and the slopes of PRelu. Adaptive average
    pooling that is written as products with averaging matrices counts for nothing, as other pooling. A quantized file
    has the FLOPs and parameters of the float one, and its own size. Raises UserError if the file is of another fixed
    size.
    """
    nodes, initializers = _counted(file, size)
    trained = {name for node, _ in nodes for name in _trained_inputs(node, initializers)}
    params = sum(math.prod(initializers[name].dims) for name in trained)
    layers = _by_weight(nodes, initializers)
    return Cost(sum(flops for _, flops in nodes), params, file.stat().st_size, layers)


def flops_by_weight(file: Path, size: tuple[int, int]) -> dict[str, int]:
    """{name of a layer's weight: multiply-accumulates of the layer}, counted as `onnx_cost` does."""
    return _by_weight(*_counted(file, size))


def _by_weight(nodes: list[tuple[NodeProto, int]], initializers: Mapping[str, TensorProto]) -> dict[str, int]:
    found: dict[str, int] = {}
    for node, flops in nodes:
        for name in node.input[:2] if flops else ():
            if name in initializers:
                found[name] = found.get(name, 0) + flops
    return found


def by_layer(file: Path, times: Iterable[NodeTime]) -> dict[str, float]:
    """{name of a layer's weight, or type of an operator that has none: milliseconds}, in the order of the file.

    A norm, an activation or a sum counts for the layer before it, into which engines fuse it.
    """
    model = onnx.load(file)
    fold(model)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    layers: dict[str, str] = {}  # by the name of a node or a tensor: that of the layer
    for node in model.graph.node:
        weights = [name for name in node.input[:2] if name in initializers] if node.op_type in LAYERS else []
        layer = node.op_type
        if _is_pooling(node, initializers):
            layer = "AveragePool"
        elif weights or node.op_type in FUSED:
            before = next((layers[name] for name in node.input if name in layers), layer)
            layer = weights[0].removesuffix(".dequantized") if weights else before
        layers |= dict.fromkeys((node.name, *node.output), layer)
    found = dict.fromkeys(layers.values(), 0.0)
    for time in times:
        layer = next((layers[name] for name in time.names if name in layers), time.op_type)
        found[layer] = found.get(layer, 0.0) + time.ms
    return {layer: ms for layer, ms in found.items() if ms}


def _counted(file: Path, size: tuple[int, int]) -> tuple[list[tuple[NodeProto, int]], dict[str, TensorProto]]:
    """The nodes but for poolings with their multiply-accumulates, and the initializers by name."""
    model = onnx.load(file)
    _set_input_size(model, size, file)
    fold(model)
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in initializers.items()}
    for info in [*graph.value_info, *graph.input, *graph.output]:
        shapes[info.name] = tuple(dimension.dim_value for dimension in info.type.tensor_type.shape.dim)
    try:
        nodes = [(node, _flops(node, shapes)) for node in graph.node if not _is_pooling(node, initializers)]
    except KeyError as missing:
        raise UserError(f"{file}: the shape of tensor {missing} is unknown; export it with a fixed size") from missing
    return nodes, initializers


def _set_input_size(model: ModelProto, size: tuple[int, int], file: Path) -> None:
    """Fixes the input to one image of `size`, where its batch, height and width are that already or dynamic."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    image = next(tensor for tensor in model.graph.input if tensor.name not in initializers)
    dimensions = image.type.tensor_type.shape.dim
    for dimension, number in zip((dimensions[0], dimensions[2], dimensions[3]), (1, size[1], size[0]), strict=True):
        if dimension.dim_value not in (0, number):
            width, height = dimensions[3].dim_value, dimensions[2].dim_value
            raise UserError(
                f"{file} takes images of {width} x {height}, and cannot be counted at {size[0]} x {size[1]}"
            )
        dimension.dim_value = number


def _flops(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one operator. Raises KeyError with the name of a tensor whose shape is not known."""
    if node.op_type == "Conv":  # weight: out channels, in channels of a group, kernel
        return math.prod(_known(shapes, node.output[0])) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # weight: in channels, out channels of a group, kernel
        return math.prod(_known(shapes, node.input[0])) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return math.prod(_known(shapes, node.output[0])) * _known(shapes, node.input[0])[-1]
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(_known(shapes, node.output[0])) * _known(shapes, node.input[0])[0 if transposed else 1]
    return 0


def _known(shapes: Mapping[str, Shape], name: str) -> Shape:
    if not all(shapes[name]):
        raise KeyError(name)
    return shapes[name]


def _trained_inputs(node: NodeProto, initializers: Mapping[str, TensorProto]) -> list[str]:
    if node.op_type in ELEMENTWISE:
        constants = [initializers[name] for name in node.input if name in initializers]
        return [c.name for c in constants if c.data_type == TensorProto.FLOAT and math.prod(c.dims) > 1]
    positions = [position for position in TRAINED_INPUTS.get(node.op_type, ()) if position < len(node.input)]
    return [node.input[position] for position in positions if node.input[position] in initializers]


def _is_pooling(node: NodeProto, initializers: Mapping[str, TensorProto]) -> bool:
    """True for a product with an averaging matrix: each row (or column) is one run of one value, and sums to 1."""
    constants = [initializers[name] for name in node.input if name in initializers]
    if node.op_type != "MatMul" or len(constants) != 1 or len(constants[0].dims) != 2:
        return False
    matrix = numpy_helper.to_array(constants[0])
    return _averages(matrix) or _averages(matrix.T)


def _averages(matrix: np.ndarray) -> bool:
    inside = matrix > 0
    runs = (np.diff(inside.astype(int), axis=1, prepend=0) > 0).sum(1)
    means = inside / np.maximum(inside.sum(1, keepdims=True), 1)
    return bool((runs == 1).all() and np.allclose(matrix, means, atol=1e-6))
