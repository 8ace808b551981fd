"""Quantization-aware training: PaddleSlim's fake-quantize layers in a network, and the spec that they have learned.

The range of a layer's input is a moving average of its batches' largest values.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from segslim.errors import UserError
from segslim.exported import ExportedNetwork
from segslim.onnx_tools import attribute
from segslim.paddle_compat import import_paddle
from segslim.quantization.graph import Graph, along_axis, foldable_pairs, folded_copy, output_axis
from segslim.quantization.placement import MATMUL_OPS, place_integers
from segslim.quantization.spec import QuantizationSpec

INPUT = "_fake_quant_input"  # PaddleSlim's name for a wrapped layer's fake-quantize layer of the input


def fake_quantize(network: Any, spec: QuantizationSpec, model: ModelProto) -> Any:
    """Wraps every layer of the types in `spec.fake_quantize` in fake-quantize layers, in place; returns `network`.

    `model` is the network's float ONNX graph: it says which tensor of `spec.ranges` each layer reads. Layers of
    `spec.keep_float` stay as they are. Raises UserError where there is no layer of these types.
    """
    for layer in network.sublayers():
        if _weight_name(layer) in spec.keep_float:
            layer.skip_quant = True
    # inputs and weights only: QAT.quantize would also add a layer behind each output, which only watches it
    _paddleslim_qat(spec.fake_quantize).imperative_qat._quantize_inputs.apply(network)
    layers = _wrapped_layers(network)
    if not layers:
        raise _no_such_layer(spec.fake_quantize["quantizable_layer_type"])
    inputs = _inputs_by_weight(model)
    for name, layer in layers.items():
        known = [spec.ranges[tensor] for tensor in inputs.get(name, ()) if tensor in spec.ranges]
        if not known:
            continue
        # The calibrated range holds until the first training batch, which starts the average (_state and _accum are 0).
        # An average that went on from it fails where batch norm has seen few images: activations in training can be a
        # thousandth of those in evaluation, and would all be rounded to 0.
        top = max(max(-low, high) for low, high in known)
        for attribute_name, value in (("_scale", top), ("_state", 0.0), ("_accum", 0.0)):
            tensor = getattr(getattr(layer, INPUT), attribute_name, None)
            if tensor is not None:
                tensor.set_value(np.full(tensor.shape, value, np.float32))
    return network


def learned(network: Any, spec: QuantizationSpec, model: ModelProto) -> QuantizationSpec:
    """`spec` with the ranges and weight scales that the layers of a fake-quantized network have now.

    Tensors that share a scale with a layer's input get that layer's range; those that no layer reads (an addition's
    inputs) keep the calibrated one. `model` is the float ONNX graph, as for `fake_quantize`.
    """
    inputs = _inputs_by_weight(model)
    layers = {name: layer for name, layer in _wrapped_layers(network).items() if name in inputs}
    groups = place_integers(folded_copy(model)).groups
    tops: dict[str, float] = {}  # by group
    for name, layer in layers.items():
        top = float(getattr(layer, INPUT)._scale.numpy().max())
        for group in {groups[tensor] for tensor in inputs[name] if tensor in groups}:
            tops[group] = max(tops.get(group, 0.0), top)
    ranges = {
        tensor: (0.0 if low >= 0 else -tops[groups[tensor]], tops[groups[tensor]])
        if tops.get(groups.get(tensor, ""))
        else (low, high)
        for tensor, (low, high) in spec.ranges.items()
    }
    scales = {name: _weight_scale(layer, spec.fake_quantize) for name, layer in layers.items()}
    return dataclasses.replace(spec, ranges=ranges, weight_scales=scales, rounded={})


def _weight_scale(layer: Any, options: Mapping[str, Any]) -> np.ndarray:
    """The scales with which PaddleSlim rounds a layer's weight, one per output channel."""
    weight = np.abs(layer.weight.numpy())
    axis = 1 if "Transpose" in type(layer).__name__ or "Linear" in type(layer).__name__ else 0
    largest = weight.max(axis=tuple(a for a in range(weight.ndim) if a != axis))
    if options["weight_quantize_type"] == "abs_max":
        largest = np.full_like(largest, largest.max())
    return np.asarray(largest / (2 ** (options["weight_bits"] - 1) - 1), np.float32)


def plain_name(name: str) -> str:
    """A name of the state dict as it is in the float network: PaddleSlim nests each layer that it wraps one deeper."""
    return name.replace("._layer.", ".")


def fuse_conv_bn(network: Any, model: ModelProto) -> int:
    """Multiplies convolutions' weights by their batch norm's factor, in place; returns how many were fused.

    The batch norm is left to add a constant, and its statistics stay fixed in training too. The network keeps its
    layers, unlike with PaddleSlim's fuse_conv_bn, and its output in evaluation. `model` is its float ONNX graph.
    """
    sublayers = network.sublayers()
    convolutions = {name: layer for layer in sublayers if (name := _weight_name(layer)) is not None}
    norms = {layer._mean.name: layer for layer in sublayers if hasattr(layer, "_mean")}
    pairs = foldable_pairs(Graph.from_model(model))
    for node, norm_node in pairs:
        convolution, norm = convolutions[node.input[1]], norms[norm_node.input[3]]
        epsilon = float(attribute(norm_node, "epsilon", 1e-5))
        scale, shift, mean, variance = (
            tensor.numpy().astype(np.float64) for tensor in (norm.weight, norm.bias, norm._mean, norm._variance)
        )
        factor = scale / np.sqrt(variance + epsilon)
        weight = convolution.weight.numpy()
        values = [
            (convolution.weight, weight * along_axis(factor, output_axis(node), weight.ndim)),
            (norm.weight, np.ones_like(factor)),
            (norm.bias, shift - mean * factor),
            (norm._mean, np.zeros_like(factor)),
            (norm._variance, np.full_like(factor, 1 - epsilon)),  # the norm divides by sqrt(variance + epsilon) = 1
        ]
        if convolution.bias is not None:
            values.append((convolution.bias, convolution.bias.numpy() * factor))
        for tensor, value in values:
            tensor.set_value(value.astype(np.float32))
        norm._use_global_stats = True
    return len(pairs)


def can_save_paddle_int8() -> bool:
    """Whether this Paddle can write an int8 model in its own format: 2.6 is the last that can.

    Paddle 3.0 to 3.3.1 have another program format, on which PaddleSlim's conversion of fake-quantize layers fails
    (`sigmoid(): must be Value, but got Variable`). It can go when `save_paddle_int8` works on the Paddle in use.
    """
    return int(import_paddle().__version__.split(".")[0]) < 3


def save_paddle_int8(
    network: Any,
    spec: QuantizationSpec,
    model: ModelProto,
    deployed: Callable[[Any], Any],
    folder: Path,
    shape: Sequence[int | None],
    default_options: Mapping[str, Any],
) -> None:
    """Writes model.pdmodel and model.pdiparams with int8 weights and input scales, for TensorRT in Paddle Inference.

    Args:
        network: the float network; it is changed in place.
        spec: its quantization.
        model: its float ONNX graph.
        deployed: wraps the fake-quantized network in the layer that is saved, whose output is the deployed one.
        folder: where to write; made here.
        shape: N,C,H,W of the input, None for dynamic sizes.
        default_options: options of the fake-quantize layers where `spec.fake_quantize` is empty.
    """
    paddle = import_paddle()
    # PACT's learned clipping is in the ranges already, and fused batch norm in the weights
    options = {**(spec.fake_quantize or default_options), "pact": False, "fuse_conv_bn": False}
    layer = deployed(fake_quantize(network, dataclasses.replace(spec, fake_quantize=options), model))
    layer.eval()
    with paddle.no_grad():
        # saving takes the weight scales of the last run, so there has to be one
        layer(paddle.zeros([1, shape[1], *(size or 64 for size in shape[2:])]))
    folder.mkdir()
    input_spec = [paddle.static.InputSpec(list(shape), "float32", "x")]
    with paddle.static.scope_guard(paddle.static.Scope()):
        _paddleslim_qat(options).save_quantized_model(layer, str(folder / "model"), input_spec=input_spec)


def check_layer_types(network: Any, types: Collection[str]) -> None:
    """Raises UserError where the network has no layer that `fake_quantize` could wrap."""
    classes = tuple(getattr(import_paddle().nn, name) for name in types)
    if not any(isinstance(layer, classes) for layer in network.sublayers()):
        raise _no_such_layer(types)


def match_layers(network: Any, patterns: Collection[str]) -> tuple[str, ...]:
    """The weights' names of the layers whose name in the network (head.conv1) fits one of `patterns` (head.*).

    Raises UserError for a pattern that fits no layer with a weight.
    """
    names = layer_names(network)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            examples = ", ".join(list(names.values())[-4:])
            raise UserError(f"compress.keep_float={pattern}: fits no layer of the network; it has {examples}")
    return tuple(weight for weight, name in names.items() if any(fnmatchcase(name, p) for p in patterns))


def layer_names(network: Any) -> dict[str, str]:
    """The name of each layer in the network (head.conv1), by the name of its weight."""
    if isinstance(network, ExportedNetwork):
        return {weight: weight.removesuffix(".weight") for weight in _inputs_by_weight(network.model)}
    weights = {name: _weight_name(layer) for name, layer in network.named_sublayers()}
    return {weight: name for name, weight in weights.items() if weight}


def _weight_name(layer: Any) -> str | None:
    return getattr(getattr(layer, "weight", None), "name", None)


def _wrapped_layers(network: Any) -> dict[str, Any]:
    """The fake-quantized layers by the name of their weight."""
    return {layer.weight.name: layer for layer in network.sublayers() if hasattr(layer, INPUT)}


def _inputs_by_weight(model: ModelProto) -> dict[str, list[str]]:
    """The tensors that each weight is multiplied with, by the weight's name."""
    graph = Graph.from_model(model)
    inputs: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op_type in MATMUL_OPS and graph.is_constant(node.input[1]):
            inputs.setdefault(node.input[1], []).append(node.input[0])
    return inputs


def _no_such_layer(types: Collection[str]) -> UserError:
    return UserError(
        f"compress.qat.quantizable_layer_type=[{', '.join(types)}]: the network has no layer of these types"
    )


def _paddleslim_qat(options: Mapping[str, Any]) -> Any:
    """PaddleSlim's QAT with the options of compress.qat, of which some are not PaddleSlim's."""
    import_paddle()
    from paddleslim import QAT

    same = ("weight_quantize_type", "activation_quantize_type", "weight_bits", "activation_bits", "moving_rate")
    config = {key: options[key] for key in same}
    config["quantizable_layer_type"] = list(options["quantizable_layer_type"])
    config["activation_preprocess_type"] = "PACT" if options["pact"] else None
    return QAT(config=config)
