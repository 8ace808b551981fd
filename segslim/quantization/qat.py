"""Fake-quantize layers (PaddleSlim's QAT) in a network that is trained on, and what they have learned, as a Table.

A layer's input is fake-quantized by a moving average of its largest values.
"""

import dataclasses
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from onnx import ModelProto

from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from segslim.quantization.fold import fold_batch_norm
from segslim.quantization.graph import Graph
from segslim.quantization.placement import MULTIPLIES, place
from segslim.quantization.table import Range, Table

PADDLESLIMS = ("weight_quantize_type", "activation_quantize_type", "weight_bits", "activation_bits", "moving_rate")
INPUT, WEIGHT = "_fake_quant_input", "_fake_quant_weight"


def fake_quantize(network: Any, table: Table, model: ModelProto) -> Any:
    """`network`, changed in place, with fake-quantize layers around every layer of the types in table.training.

    `model` is its float ONNX graph, which says whose input a range of `table` is. Layers of table.keep_float stay as
    they are. Raises UserError where there is no layer of these types.
    """
    for layer in network.sublayers():
        if _weight_name(layer) in table.keep_float:
            layer.skip_quant = True
    # of the layers' inputs and weights alone: PaddleSlim would also put a layer behind each output that only watches it
    paddleslim_qat(table.training).imperative_qat._quantize_inputs.apply(network)
    layers = _layers(network)
    if not layers:
        raise _no_layer_of(table.training["quantizable_layer_type"])
    inputs = inputs_of(model)
    for name, layer in layers.items():
        tops = [
            max(-table.ranges[tensor][0], table.ranges[tensor][1])
            for tensor in inputs.get(name, ())
            if tensor in table.ranges
        ]
        if tops:
            _begin_at(getattr(layer, INPUT), max(tops))
    return network


def check_layer_types(network: Any, types: Collection[str]) -> None:
    """Raises UserError where the network has no layer that `fake_quantize` could wrap."""
    nn = import_paddle().nn
    classes = tuple(getattr(nn, name) for name in types)
    if not any(isinstance(layer, classes) for layer in network.sublayers()):
        raise _no_layer_of(types)


def _no_layer_of(types: Collection[str]) -> UserError:
    return UserError(
        f"compress.qat.quantizable_layer_type=[{', '.join(types)}]: the network has no layer of these types"
    )


def learned(network: Any, table: Table, model: ModelProto) -> Table:
    """`table` with the ranges and weight scales that the layers of a fake-quantized network have now.

    What shares its scale with a layer's input takes that layer's range; what no layer reads (an addition's input) keeps
    the calibrated one.
    """
    layers, inputs = _layers(network), inputs_of(model)
    tops: dict[str, float] = {}
    for name, layer in layers.items():
        for tensor in inputs.get(name, ()):
            tops[tensor] = max(tops.get(tensor, 0.0), float(getattr(layer, INPUT)._scale.numpy().max()))
    weights = {name: _weight_scale(layer, table.training) for name, layer in layers.items() if name in inputs}
    return dataclasses.replace(table, ranges=_with_tops(table.ranges, tops, model), weights=weights)


def plain_name(name: str) -> str:
    """A name in the state dict as it is without the layers: PaddleSlim wraps what it quantizes in one more."""
    return name.replace("._layer.", ".")


def inputs_of(model: ModelProto) -> dict[str, list[str]]:
    """The tensors that each weight is multiplied with, by the weight's name."""
    graph = Graph.of(model.graph)
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op_type in MULTIPLIES and graph.is_constant(node.input[1]):
            found.setdefault(node.input[1], []).append(node.input[0])
    return found


def paddleslim_qat(training: Mapping[str, Any]) -> Any:
    """PaddleSlim's QAT with the options of compress.qat."""
    import_paddle()
    from paddleslim import QAT

    options = {
        **{key: training[key] for key in PADDLESLIMS},
        "quantizable_layer_type": list(training["quantizable_layer_type"]),
        "activation_preprocess_type": "PACT" if training["pact"] else None,
    }
    return QAT(config=options)


def _layers(network: Any) -> dict[str, Any]:
    """The fake-quantized layers by the name of their weight."""
    return {layer.weight.name: layer for layer in network.sublayers() if hasattr(layer, INPUT)}


def _weight_name(layer: Any) -> str | None:
    weight = getattr(layer, "weight", None)
    return getattr(weight, "name", None)


def _begin_at(observer: Any, top: float) -> None:
    """The calibrated range, until the first training batch begins the average.

    An average that went on from it would be wrong for a network whose batch norm knows too few images: in training its
    activations can be a thousandth of what they are in evaluation, and would all be rounded to 0.
    """
    for name, value in (("_scale", top), ("_state", 0.0), ("_accum", 0.0)):
        tensor = getattr(observer, name, None)
        if tensor is not None:
            tensor.set_value(np.full(tensor.shape, value, np.float32))


def _weight_scale(layer: Any, training: Mapping[str, Any]) -> np.ndarray:
    weight = np.abs(layer.weight.numpy())
    levels = 2 ** (training["weight_bits"] - 1) - 1
    axis = 1 if "Transpose" in type(layer).__name__ or "Linear" in type(layer).__name__ else 0
    others = tuple(a for a in range(weight.ndim) if a != axis)
    largest = weight.max(axis=others)
    if training["weight_quantize_type"] == "abs_max":
        largest = np.full_like(largest, largest.max())
    return np.asarray(largest / levels, np.float32)


def _with_tops(ranges: Mapping[str, Range], tops: Mapping[str, float], model: ModelProto) -> dict[str, Range]:
    folded = ModelProto.FromString(model.SerializeToString())
    fold_batch_norm(folded)
    groups = place(folded).groups
    by_group: dict[str, float] = {}
    for tensor, top in tops.items():
        if tensor in groups and top > 0:
            by_group[groups[tensor]] = max(by_group.get(groups[tensor], 0.0), top)
    after = dict(ranges)
    for tensor, group in groups.items():
        if group in by_group and tensor in after:
            after[tensor] = (0.0 if after[tensor][0] >= 0 else -by_group[group], by_group[group])
    return after


def matching(network: Any, patterns: Collection[str]) -> tuple[str, ...]:
    """The names of the weights of the layers whose name in the network (head.conv1) fits one of `patterns` (head.*).

    Raises UserError for a pattern that fits no layer with a weight.
    """
    named = layer_names(network).values()
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UserError(
                f"compress.keep_float={pattern}: fits no layer of the network, as {', '.join(list(named)[-4:])}"
            )
    return tuple(w for w, name in layer_names(network).items() if any(fnmatchcase(name, p) for p in patterns))


def layer_names(network: Any) -> dict[str, str]:
    """The name of each layer in the network (head.conv1), by the name of its weight."""
    weights = {name: _weight_name(layer) for name, layer in network.named_sublayers()}
    return {weight: name for name, weight in weights.items() if weight}
