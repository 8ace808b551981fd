"""Inserts QuantizeLinear and DequantizeLinear into a float ONNX graph: what engines turn into integer kernels.

Weights are int8 with one scale per output channel, as fine as the target's kernels allow (saturation.py). Activations
have one scale per tensor and one of two types. "uint8" has its zero point where the range has its 0: at 0 for a tensor
that is never negative, since OpenVINO and ONNX Runtime fuse a rectifier into the kernel before it so only. "int8" has
its zero point at 0: TensorRT takes nothing else. Biases stay float: engines convert them to the accumulator's scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from segslim.errors import UserError
from segslim.onnx_tools import attribute, copied, insert_nodes
from segslim.quantization.graph import (
    Graph,
    along_axis,
    drop_unread_initializers,
    fold_batch_norm,
    output_axis,
    set_initializer,
)
from segslim.quantization.placement import MATMUL_OPS, FloatNode, Placement, place_integers
from segslim.quantization.saturation import largest_pairs
from segslim.quantization.spec import SATURATING, QuantizationSpec, Range

LEVELS = 127  # int8 from -127 to 127: the same on both sides of 0
LARGEST_BIAS = 1 << 30  # of int32, with room for what is added to it
FUSED = ("Relu", "Clip")  # what every engine computes within the convolution before it
SMALLEST_SCALE = 1e-8  # for a tensor that was 0 on every image


@dataclass(frozen=True)
class Scale:
    """real = scale * (integer - zero_point)."""

    scale: float
    zero_point: np.integer

    @staticmethod
    def from_range(low: float, high: float, activation_type: str) -> "Scale":
        """The scale that covers low..high with integers of the type, and 0 with an integer exactly.

        int8, and what is as far below 0 as above, is symmetric: as fake-quantize layers round.
        """
        if activation_type == "int8" or -low == high:
            middle = np.uint8(128) if activation_type == "uint8" else np.int8(0)
            return Scale(max(max(-low, high) / LEVELS, SMALLEST_SCALE), middle)
        low, high = min(low, 0.0), max(high, 0.0)
        zero = round(-low / max(high - low, SMALLEST_SCALE) * 255)
        # of the integers on either side of 0, the side that needs larger steps
        steps = [-low / zero if zero else 0.0, high / (255 - zero) if zero < 255 else 0.0]
        return Scale(max(*steps, SMALLEST_SCALE), np.uint8(zero))


@dataclass(frozen=True)
class Quantized:
    """What became int8: the numbers of tensors and nodes, and the nodes that stayed float."""

    tensors: int
    integer_nodes: int
    floats: tuple[FloatNode, ...]


def quantize(model: ModelProto, spec: QuantizationSpec) -> Quantized:
    """Folds batch norm and inserts the pairs, in place.

    Raises UserError where no layer can be quantized, or `spec` lacks the range of a tensor that has to be int8.
    """
    learned = fold_batch_norm(model, spec.weight_scales)
    placement = place_integers(model, spec.keep_float)
    if not any(node.op_type in MATMUL_OPS and node.output[0] in placement.integer for node in model.graph.node):
        layers = [f"{node.tensor} ({node.op_type}): {node.reason}" for node in placement.floats]
        raise UserError(f"compress: no layer of this network can be quantized: {'; '.join(layers[:5])}")
    scales = activation_scales(placement, spec.ranges, spec.activation_type)
    steps = {tensor: scales[group].scale for tensor, group in placement.groups.items()}
    _quantize_weights(model, placement, learned, spec.target, steps)
    _set_rounded(model, spec.rounded)
    _quantize_activations(model, placement, scales, frozenset(spec.keep_float))
    return Quantized(len(placement.groups), len(placement.integer), placement.floats)


@dataclass(frozen=True)
class IntegerConvolution:
    """One that is int8, by the name of its output, with what its input, its output behind an activation that engines
    fuse into it, and its weight's output channels are divided by. `groups`: of its channels, 1 where all are one.
    """

    name: str
    groups: int
    input: Scale
    output: Scale
    weight: np.ndarray


def as_float(model: ModelProto) -> tuple[ModelProto, list[IntegerConvolution]]:
    """The float graph of an int8 one, with the weights as they were rounded: for converters that take the scales beside
    it, and do not read QuantizeLinear.
    """
    made = copied(model)
    graph = Graph.from_model(made)
    scales: dict[str, Scale] = {}
    weights: dict[str, np.ndarray] = {}
    floats: dict[str, str] = {}  # {what a DequantizeLinear gives: the tensor that it stands for}
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        integers, step, zero = node.input
        given = floats[node.output[0]] = integers if graph.is_constant(integers) else graph.producers[integers].input[0]
        if graph.is_constant(integers):
            weights[given], values = graph.array(step), graph.array(integers)
            by_channel = along_axis(weights[given], attribute(node, "axis", 1), values.ndim)
            set_initializer(made.graph, given, values.astype(np.float32) * by_channel)
        else:
            scales[given] = Scale(float(graph.array(step)), graph.array(zero).flat[0])
    del made.graph.node[:]
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            node.input[:] = [floats.get(name, name) for name in node.input]
            made.graph.node.append(node)
    drop_unread_initializers(made.graph)
    graph = Graph.from_model(made)
    found = []
    for node in graph.nodes:
        output = node.output[0]
        if output not in scales and (after := graph.only_consumer(output)) is not None and after.op_type in FUSED:
            output = after.output[0]
        if node.op_type == "Conv" and node.input[1] in weights and {node.input[0], output} <= scales.keys():
            steps = np.broadcast_to(weights[node.input[1]], graph.array(node.input[1]).shape[0])
            found.append(
                IntegerConvolution(
                    node.output[0], attribute(node, "group", 1), scales[node.input[0]], scales[output], steps
                )
            )
    return made, found


def activation_scales(placement: Placement, ranges: Mapping[str, Range], activation_type: str) -> dict[str, Scale]:
    """The scale of each group of int8 tensors, from the ranges of its members.

    Raises UserError that names the groups none of whose members has a range.
    """
    by_group: dict[str, list[Range]] = {group: [] for group in placement.groups.values()}
    for tensor, group in placement.groups.items():
        if tensor in ranges:
            by_group[group].append(ranges[tensor])
    missing = [group for group, members in by_group.items() if not members]
    if missing:
        raise UserError(f"quantization: {', '.join(missing[:5])} have no range; calibrate this network again")
    return {
        group: Scale.from_range(min(low for low, _ in members), max(high for _, high in members), activation_type)
        for group, members in by_group.items()
    }


def weight_axis(node: NodeProto, dimensions: int) -> int | None:
    """The axis of a constant weight along which each position has its own scale; None for one scale for all."""
    if node.op_type == "ConvTranspose":
        return output_axis(node) if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Conv":
        return output_axis(node)
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if dimensions == 2 else None


def weight_scales(node: NodeProto, weight: np.ndarray, target: str) -> np.ndarray:
    """The least scales of a node's weight with which nothing is clipped and, on the target, no kernel saturates: a
    vector along `weight_axis`, or a scalar array where that is None. float32.
    """
    largest = largest_pairs(node, weight, target)
    if weight_axis(node, weight.ndim) is None:
        largest = largest.max()
    return np.asarray(np.maximum(largest / LEVELS, SMALLEST_SCALE), np.float32)


def to_int8(array: np.ndarray, scales: np.ndarray, axis: int | None) -> np.ndarray:
    """round(array / scale), clipped to -127..127; halves go to even, as QuantizeLinear rounds."""
    return np.clip(np.rint(array / along_axis(scales, axis, array.ndim)), -LEVELS, LEVELS).astype(np.int8)


def _quantize_weights(
    model: ModelProto,
    placement: Placement,
    learned: Mapping[str, np.ndarray],
    target: str,
    steps: Mapping[str, float],
) -> None:
    """steps: the scale of each int8 activation."""
    graph = Graph.from_model(model)
    dequantize: dict[str, NodeProto] = {}  # one node for a weight that several layers share
    for node in graph.nodes:
        if node.op_type not in MATMUL_OPS or node.output[0] not in placement.integer:
            continue
        for position, name in enumerate(node.input[:2]):
            if graph.is_constant(name):
                if name not in dequantize:
                    weight = graph.array(name)
                    scales = _unsaturated(learned.get(name), weight_scales(node, weight, target), target)
                    scales = np.maximum(scales, _least_for_bias(graph, node, scales, steps))
                    dequantize[name] = _int8_weight(model, node, name, weight, scales)
                node.input[position] = dequantize[name].output[0]
    for added in reversed(dequantize.values()):
        model.graph.node.insert(0, added)
    drop_unread_initializers(model.graph)


def _least_for_bias(graph: Graph, node: NodeProto, scales: np.ndarray, steps: Mapping[str, float]) -> np.ndarray:
    """The least scales of a layer's weight with which its bias fits into int32.

    ONNX Runtime 1.32.0 (its optimizer WeightBiasQuantization) rounds a float bias in steps of the input's scale times
    the weight's, and wraps around where that overflows: of a dead channel, whose weights are next to nothing, it makes
    anything. It can go when a layer with such a channel gives the same with and without optimizations.
    """
    if len(node.input) < 3 or not graph.is_constant(node.input[2]) or node.input[0] not in steps:
        return np.zeros(scales.shape, np.float32)
    least = np.abs(graph.array(node.input[2])).ravel() / (steps[node.input[0]] * LARGEST_BIAS)
    fits = least.size == scales.size
    return np.asarray(least.reshape(scales.shape) if fits else np.full(scales.shape, least.max()), np.float32)


def _unsaturated(learned: np.ndarray | None, scales: np.ndarray, target: str) -> np.ndarray:
    """The scales that fake-quantize layers have learned, where they clip no more than the target's kernels bear."""
    # they may know another axis than the engines do (grouped transposed convolutions)
    if learned is None or learned.shape != scales.shape:
        return scales
    return np.maximum(learned, scales if target in SATURATING else SMALLEST_SCALE).astype(np.float32)


def _set_rounded(model: ModelProto, rounded: Mapping[str, np.ndarray]) -> None:
    """Gives int8 layers the integers, scales and biases of `rounded` in place of those that follow from the weights."""
    by_weight = {node.input[1].removesuffix(".dequantized"): node for node in model.graph.node if len(node.input) > 1}
    for name, array in rounded.items():
        weight, _, part = name.rpartition(".")
        node = by_weight.get(weight)
        if node is not None and node.input[1] != weight:  # else it is left float
            set_initializer(model.graph, node.input[2] if part == "bias" else name, array)


def _int8_weight(model: ModelProto, node: NodeProto, name: str, weight: np.ndarray, scales: np.ndarray) -> NodeProto:
    """Adds the constants of an int8 weight; returns the DequantizeLinear that reads them."""
    axis = weight_axis(node, weight.ndim)
    set_initializer(model.graph, f"{name}.int8", to_int8(weight, scales, axis))
    set_initializer(model.graph, f"{name}.scale", scales)
    set_initializer(model.graph, f"{name}.zero", np.zeros(scales.shape, np.int8))
    options = {"axis": axis} if axis is not None and scales.ndim else {}
    inputs = [f"{name}.{part}" for part in ("int8", "scale", "zero")]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], f"{name}.dequantize", **options)


def _quantize_activations(
    model: ModelProto, placement: Placement, scales: Mapping[str, Scale], keep_float: frozenset[str]
) -> None:
    """Puts a pair on each int8 tensor. Its readers read the pair's output, except for layers that stay float."""
    graph = Graph.from_model(model)
    pairs: dict[str, list[NodeProto]] = {}
    for tensor, group in placement.groups.items():
        scale, zero = f"{group}.scale", f"{group}.zero"
        if tensor == group:
            set_initializer(model.graph, scale, np.asarray(scales[group].scale, np.float32))
            set_initializer(model.graph, zero, np.asarray(scales[group].zero_point))
        integers, floats = f"{tensor}.int8", f"{tensor}.dequantized"
        pairs[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, scale, zero], [integers], f"{tensor}.quantize"),
            helper.make_node("DequantizeLinear", [integers, scale, zero], [floats], f"{tensor}.dequantize"),
        ]
        for reader in graph.consumers.get(tensor, []):
            if keep_float.isdisjoint(reader.input):
                reader.input[:] = [floats if name == tensor else name for name in reader.input]
    insert_nodes(model.graph, pairs)
