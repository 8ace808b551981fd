"""Which layers lose most to int8, and which of them compress.keep_float=auto keeps float."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from segslim.quantization.calibration import TensorStatistics, relative_noise
from segslim.quantization.graph import Graph, along_axis, folded_copy
from segslim.quantization.placement import MATMUL_OPS, place_integers
from segslim.quantization.qdq import to_int8, weight_axis, weight_scales
from segslim.quantization.spec import Range

CANDIDATES = 8  # layers with the lowest signal-to-noise ratio that are tried alone: the others hardly add noise
Miou = Callable[[Sequence[str] | None], float]


def signal_to_noise(
    model: ModelProto, statistics: Mapping[str, TensorStatistics], ranges: Mapping[str, Range], target: str
) -> dict[str, float]:
    """The signal-to-quantization-noise ratio of each layer in decibels, by its weight's name, the worst first.

    The relative noise of a product is, to first order, the sum of its factors' relative noises. `statistics` need
    histograms.
    """
    folded = folded_copy(model)
    graph, placement = Graph.from_model(folded), place_integers(folded)
    ratios: dict[str, float] = {}
    for node in graph.nodes:
        if node.op_type in MATMUL_OPS and node.input[0] in statistics and graph.is_constant(node.input[1]):
            # an input is rounded with the scale of its group, which the widest member decides
            members = placement.members(placement.groups[node.input[0]])
            low, high = zip(*(ranges[tensor] for tensor in members if tensor in ranges), strict=True)
            weight = graph.array(node.input[1])
            noise = relative_noise(statistics[node.input[0]], (min(low), max(high))) + weight_noise(
                node, weight, target
            )
            ratio = float(-10 * np.log10(max(noise, 1e-12)))
            ratios[node.input[1]] = min(ratios.get(node.input[1], ratio), ratio)
    return dict(sorted(ratios.items(), key=lambda item: item[1]))


def weight_noise(node: NodeProto, weight: np.ndarray, target: str) -> float:
    """Mean square error of a weight in int8, divided by its mean square."""
    scales, axis = weight_scales(node, weight, target), weight_axis(node, weight.ndim)
    rounded = to_int8(weight, scales, axis) * along_axis(scales, axis, weight.ndim)
    power = float((weight.astype(np.float64) ** 2).sum())
    return float(((weight - rounded) ** 2).sum()) / power if power else 0.0


def choose_float_layers(
    ratios: Mapping[str, float],
    costs: Mapping[str, float],
    miou: Miou,
    loss: float,
    progress: Callable[[int, int], None],
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The weights of the layers to keep float, and the mIoU with each of the candidates alone kept float.

    The candidates that gain most mIoU for their cost are added until at most `loss` is lost. Then those that the later
    ones made needless are removed, the costliest first. All candidates are kept where they do not gain enough.

    Args:
        ratios: signal-to-noise ratio by the weight's name, the worst first; the first 8 are the candidates.
        costs: what a layer costs in float, by the weight's name, in any unit; FLOPs, as int8 speeds all up about alike.
        miou: mIoU of the network with these layers float and the rest int8; of the float network for None.
        loss: how much mIoU may be lost to the float network, in 0..1.
        progress: called with the candidates that were tried and their number.
    """
    wanted = miou(None) - loss
    all_int8 = miou(())
    if all_int8 >= wanted:
        return (), {}
    candidates = list(ratios)[:CANDIDATES]
    alone = {}
    for done, weight in enumerate(candidates):
        alone[weight] = miou((weight,))
        progress(done + 1, len(candidates))
    order = sorted(candidates, key=lambda weight: -(alone[weight] - all_int8) / max(costs.get(weight, 0.0), 1.0))
    for count in range(1, len(order) + 1):
        kept = order[:count]
        if miou(kept) < wanted:
            continue
        for weight in sorted(kept, key=lambda weight: -costs.get(weight, 0.0)):
            fewer = [other for other in kept if other != weight]
            if fewer and miou(fewer) >= wanted:
                kept = fewer
        return tuple(kept), alone
    return tuple(order), alone
