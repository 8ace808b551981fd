"""Which layers lose most to int8: the signal-to-quantization-noise ratio of each, from its input and its weight."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from segslim.quantization.fold import fold_batch_norm
from segslim.quantization.graph import Graph
from segslim.quantization.observers import Seen, noise
from segslim.quantization.placement import MULTIPLIES, place
from segslim.quantization.qdq import to_int8, weight_axis, weight_scales
from segslim.quantization.table import Range


def signal_to_noise(model: ModelProto, seen: Mapping[str, Seen], ranges: Mapping[str, Range]) -> dict[str, float]:
    """Decibels for each layer by its weight's name, the worst first.

    The noise of a product is, to first order, the sum of both factors' noise by their power. The range of an input is
    that of its group.
    """
    folded = ModelProto.FromString(model.SerializeToString())
    fold_batch_norm(folded)
    graph, placement = Graph.of(folded.graph), place(folded)
    found: dict[str, float] = {}
    for node in graph.nodes:
        if node.op_type in MULTIPLIES and node.input[0] in seen and graph.is_constant(node.input[1]):
            members = placement.members(placement.groups[node.input[0]])
            top = max(ranges[tensor][1] for tensor in members if tensor in ranges)
            weight = graph.array(node.input[1])
            total = noise(seen[node.input[0]], top) + weight_noise(weight, weight_axis(node, weight.ndim))
            ratio = float(-10 * np.log10(max(total, 1e-12)))
            found[node.input[1]] = min(found.get(node.input[1], ratio), ratio)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def weight_noise(weight: np.ndarray, axis: int | None) -> float:
    """Mean square error of a weight in int8, by its mean square."""
    scales = weight_scales(weight, axis)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    rounded = to_int8(weight, scales, axis) * scales.reshape(shape)
    power = float((weight.astype(np.float64) ** 2).sum())
    return float(((weight - rounded) ** 2).sum()) / power if power else 0.0
