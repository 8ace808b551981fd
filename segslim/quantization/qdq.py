"""Inserts QuantizeLinear and DequantizeLinear into a float ONNX graph: what engines turn into integer kernels.

Weights are int8 with one scale an output channel. Activations have one scale a tensor, in one of two forms: "uint8",
from 0 where a tensor is never negative, else with 0 in the middle, for OpenVINO and ONNX Runtime (which takes a
rectifier into the kernel before it in this form only); and "int8" with 0 in the middle, the only one that TensorRT
takes. Biases stay float: engines bring them to the accumulator's scale themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from segslim.errors import UserError
from segslim.quantization.fold import fold_batch_norm, output_axis
from segslim.quantization.graph import Graph, attribute, set_initializer
from segslim.quantization.placement import MULTIPLIES, Placement, StayedFloat, place
from segslim.quantization.table import Range, Table

FORMS = ("uint8", "int8")
LEVELS = 127  # int8 from -127 to 127: the same on both sides of 0
SMALLEST = 1e-8  # of a scale, for a tensor that was 0 on every image


@dataclass(frozen=True)
class Scale:
    """real = scale * (integer - zero)."""

    scale: float
    zero: np.integer

    @staticmethod
    def of(low: float, high: float, form: str) -> "Scale":
        """The scale at which `low` and `high` are integers of the form, and 0 is one exactly."""
        if form == "uint8" and low >= 0:
            return Scale(max(high / 255, SMALLEST), np.uint8(0))
        middle = np.uint8(128) if form == "uint8" else np.int8(0)
        return Scale(max(max(-low, high) / LEVELS, SMALLEST), middle)


@dataclass(frozen=True)
class Quantized:
    """What became int8: numbers of tensors and nodes, and what stayed float."""

    tensors: int
    integer_nodes: int
    floats: tuple[StayedFloat, ...]


def quantize(model: ModelProto, table: Table) -> Quantized:
    """Folds batch norm and inserts the pairs, in place.

    Raises UserError where no layer can be quantized, or the range of a tensor that has to be int8 is not in `table`.
    """
    weights = fold_batch_norm(model, table.weights)
    placement = place(model, table.keep_float)
    if not any(node.op_type in MULTIPLIES and node.output[0] in placement.integer for node in model.graph.node):
        layers = [f"{left.tensor} ({left.op_type}): {left.reason}" for left in placement.floats]
        raise UserError(f"compress: no layer of this network can be quantized: {'; '.join(layers[:5])}")
    scales = activation_scales(placement, table.ranges, table.form)
    _quantize_weights(model, placement, weights)
    _quantize_activations(model, placement, scales, frozenset(table.keep_float))
    return Quantized(len(placement.groups), len(placement.integer), placement.floats)


def activation_scales(placement: Placement, ranges: Mapping[str, Range], form: str) -> dict[str, Scale]:
    """The scale of each group of int8 tensors, from the ranges of its members."""
    found: dict[str, list[Range]] = {group: [] for group in placement.groups.values()}
    for tensor, group in placement.groups.items():
        if tensor in ranges:
            found[group].append(ranges[tensor])
    missing = [group for group, known in found.items() if not known]
    if missing:
        raise UserError(f"quantization: no range is known of {', '.join(missing[:5])}; calibrate this network again")
    return {
        group: Scale.of(min(low for low, _ in known), max(high for _, high in known), form)
        for group, known in found.items()
    }


def weight_axis(node: NodeProto, dimensions: int) -> int | None:
    """The axis of a constant weight along which each position has a scale of its own; None for one scale in all."""
    if node.op_type == "ConvTranspose":
        return output_axis(node) if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if dimensions == 2 else None


def weight_scales(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """The largest absolute value by the number of levels, along `axis` or in all."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    largest = np.abs(weight).max(axis=others if axis is not None else None)
    return np.asarray(np.maximum(largest / LEVELS, SMALLEST), np.float32)


def to_int8(array: np.ndarray, scales: np.ndarray, axis: int | None) -> np.ndarray:
    """round(array / scale), at most 127 in size; halves to even, as QuantizeLinear rounds."""
    shape = [1] * array.ndim
    if axis is not None and scales.ndim:
        shape[axis] = -1
    return np.clip(np.rint(array / scales.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)


def _quantize_weights(model: ModelProto, placement: Placement, learned: Mapping[str, np.ndarray]) -> None:
    graph = Graph.of(model.graph)
    dequantize: dict[str, NodeProto] = {}
    for node in graph.nodes:
        if node.op_type not in MULTIPLIES or node.output[0] not in placement.integer:
            continue
        for position, name in enumerate(node.input[:2]):
            if graph.is_constant(name):
                if name not in dequantize:
                    dequantize[name] = _as_int8(model, node, name, graph.array(name), learned.get(name))
                node.input[position] = dequantize[name].output[0]
    others = {name for node in model.graph.node for name in node.input}
    for name in dequantize:
        if name not in others:
            _remove_initializer(model, name)
    for made in reversed(dequantize.values()):
        model.graph.node.insert(0, made)


def _as_int8(
    model: ModelProto, node: NodeProto, name: str, weight: np.ndarray, learned: np.ndarray | None
) -> NodeProto:
    axis = weight_axis(node, weight.ndim)
    scales = weight_scales(weight, axis)
    if learned is not None and learned.shape == scales.shape:
        scales = np.maximum(learned, SMALLEST).astype(np.float32)
    set_initializer(model.graph, f"{name}.int8", to_int8(weight, scales, axis))
    set_initializer(model.graph, f"{name}.scale", scales)
    set_initializer(model.graph, f"{name}.zero", np.zeros(scales.shape, np.int8))
    options = {"axis": axis} if axis is not None and scales.ndim else {}
    inputs = [f"{name}.{part}" for part in ("int8", "scale", "zero")]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], f"{name}.dequantize", **options)


def _quantize_activations(
    model: ModelProto, placement: Placement, scales: Mapping[str, Scale], keep_float: frozenset[str]
) -> None:
    """A pair on each int8 tensor; everything reads what comes out of it, but layers that are to stay float."""
    graph = Graph.of(model.graph)
    pairs: dict[str, list[NodeProto]] = {}
    for tensor, group in placement.groups.items():
        scale, zero = f"{group}.scale", f"{group}.zero"
        if tensor == group:
            set_initializer(model.graph, scale, np.asarray(scales[group].scale, np.float32))
            set_initializer(model.graph, zero, np.asarray(scales[group].zero))
        pairs[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{tensor}.int8"], f"{tensor}.quantize"),
            helper.make_node(
                "DequantizeLinear", [f"{tensor}.int8", scale, zero], [f"{tensor}.dequantized"], f"{tensor}.dequantize"
            ),
        ]
        for reader in graph.consumers.get(tensor, []):
            if keep_float.isdisjoint(reader.input):
                reader.input[:] = [f"{name}.dequantized" if name == tensor else name for name in reader.input]
    _insert(model, pairs)


def _insert(model: ModelProto, pairs: Mapping[str, list[NodeProto]]) -> None:
    """Each pair behind the node that makes its tensor, so that the graph stays in order."""
    ordered = [node for tensor in pairs if not _made(model, tensor) for node in pairs[tensor]]
    for node in model.graph.node:
        ordered.append(node)
        ordered += [added for tensor in node.output for added in pairs.get(tensor, [])]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _made(model: ModelProto, tensor: str) -> bool:
    return any(tensor in node.output for node in model.graph.node)


def _remove_initializer(model: ModelProto, name: str) -> None:
    for position, tensor in enumerate(model.graph.initializer):
        if tensor.name == name:
            del model.graph.initializer[position]
            return
