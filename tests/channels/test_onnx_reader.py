"""Graphs that others exported: each idiom is pruned rightly, which the masked network proves, or left as it is."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from segslim.channels import ChannelGraph, prune
from segslim.exported import ExportedNetwork, with_weights
from tests.channels.proof import random_kept
from tests.networks.exported_graphs import between, graph, in_double

#: Operators from a (1, 8, 8, 8) to b, how many channels b has, and their weights and numbers.
PRUNABLE = {
    "batch norm": ("b = BatchNormalization(a, s, t, u, var)", 8, dict.fromkeys(("s", "t", "u", "var"), (8,))),
    "squeeze and excite": (
        "c = ReduceMean <axes: ints = [2, 3], keepdims: int = 1> (a) d = Conv(c, w3) e = Relu(d) f = Conv(e, w4)"
        " h1 = HardSigmoid(f) b = Mul(a, h1)",
        8,
        {"w3": (4, 8, 1, 1), "w4": (8, 4, 1, 1)},
    ),
    "hard swish of its parts": (
        "c = Add(a, three) d = Clip(c, none, six) e = Mul(a, d) b = Div(e, six)",
        8,
        {"three": 3.0, "six": 6.0, "none": 0.0},
    ),
    "depthwise, twice as many": ("b = Conv <group: int = 8> (a, w3)", 16, {"w3": (16, 1, 3, 3)}),
    "grouped": ("b = Conv <group: int = 2> (a, w3)", 8, {"w3": (8, 4, 1, 1)}),
    "transposed": ("b = ConvTranspose <strides: ints = [2, 2]> (a, w3, b3)", 6, {"w3": (8, 6, 2, 2), "b3": (6,)}),
    "resize to another's size": (
        "p = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> (a) c = Shape(p) d = Slice(c, zero, two)"
        " e = Shape(a) f = Slice(e, two, four) s = Concat <axis: int = 0> (d, f)"
        ' b = Resize <mode: string = "nearest"> (p, , , s)',
        8,
        {"zero": [0], "two": [2], "four": [4]},
    ),
    "resize to numbers": ('b = Resize <mode: string = "nearest"> (a, , , s)', 8, {"s": [1, 8, 16, 16]}),
    "reshape by 0 and -1": ("c = Reshape(a, s) b = Reshape(c, t)", 8, {"s": [0, 0, -1], "t": [0, 0, 8, 8]}),
    "reshape to numbers": ("c = Reshape(a, s) b = Reshape(c, t)", 8, {"s": [1, 8, 64], "t": [1, 8, 8, 8]}),
    "channel shuffle": (
        "c = Reshape(a, s) d = Transpose <perm: ints = [0, 2, 1, 3, 4]> (c) b = Reshape(d, t)",
        8,
        {"s": [1, 2, 4, 8, 8], "t": [1, 8, 8, 8]},
    ),
    "halves": ("c, d = Split <axis: int = 1> (a) e = Sigmoid(d) b = Mul(c, e)", 4, {}),
    "parts of given sizes, read apart": (
        "c, d, e = Split <axis: int = 1> (a, s) f = Conv(d, w3) b = Concat <axis: int = 1> (c, f, e)",
        10,
        {"s": [3, 4, 1], "w3": (6, 4, 1, 1)},
    ),
    "parts of one size, read together": (
        "c, d = Split <axis: int = 1> (a, s) e = Sigmoid(d) b = Mul(c, e)",
        4,
        {"s": [4, 4]},
    ),
    "concatenation": ("c = Relu(a) b = Concat <axis: int = 1> (a, c)", 16, {}),
    "a linear layer": (
        "c = Transpose <perm: ints = [0, 2, 3, 1]> (a) d = MatMul(c, w3) b = Transpose <perm: ints = [0, 3, 1, 2]> (d)",
        6,
        {"w3": (8, 6)},
    ),
    "a gate by Gemm": (
        "c = GlobalAveragePool(a) d = Flatten(c) e = Gemm <transB: int = 1> (d, w3, v) f = Reshape(e, s) b = Mul(a, f)",
        8,
        {"w3": (8, 8), "v": (8,), "s": [0, 0, 1, 1]},
    ),
    "a slope for each channel": ("b = PRelu(a, w3)", 8, {"w3": (8, 1, 1)}),
    "pixel shuffle": ('b = DepthToSpace <blocksize: int = 2, mode: string = "CRD"> (a)', 2, {}),
    "pixel shuffle of strided channels": ("b = DepthToSpace <blocksize: int = 2> (a)", 2, {}),
    "a choice": ("c = Greater(a, none) b = Where(c, a, none)", 8, {"none": 0.0}),
    "attention by einsum": (
        'c = Einsum <equation: string = "bchw,bcxy->bhwxy"> (a, a)'
        ' b = Einsum <equation: string = "bhwxy,bcxy->bchw"> (c, a)',
        8,
        {},
    ),
    "a sum of three": ("c = Relu(a) d = Tanh(a) b = Sum(a, c, d)", 8, {}),
    "expansion": ("c = GlobalAveragePool(a) s = Shape(a) d = Expand(c, s) b = Add(a, d)", 8, {}),
    "padding": ("b = Pad(a, s)", 8, {"s": [0, 0, 1, 1, 0, 0, 1, 1]}),
    "numbers of a gather along the image": ("b = Gather <axis: int = 3> (a, s)", 8, {"s": [0, 2, 4]}),
}


def opened(model: onnx.ModelProto, folder: Path) -> ExportedNetwork:
    onnx.save(model, folder / "net.onnx")
    return ExportedNetwork(folder / "net.onnx", num_classes=4)


def pruned_and_masked(model: onnx.ModelProto, folder: Path) -> tuple[float, float, ChannelGraph, ExportedNetwork]:
    """How far the pruned graph is from the one where all that makes and reads those channels is zero, and how far one
    is whose consumers read the next channels.
    """
    network, masked = opened(model, folder), opened(model, folder)
    channels = ChannelGraph.trace(network, (1, 3, 8, 8))
    kept = random_kept(channels, 0.5, seed=1)
    keep = channels.keeps(kept)
    dense = network.state_dict()
    weights = {name: weight.copy() for name, weight in dense.items()}
    for slot in channels.slots:
        if not slot.parameter.startswith("var"):
            np.moveaxis(weights[slot.parameter], slot.axis, 0)[~keep[slot.ids]] = 0
    masked.set_weights(weights)
    image = np.random.default_rng(2).standard_normal((1, 3, 8, 8))
    wanted = in_double(masked.model, image)
    left = prune(network, channels, kept)
    onnx.checker.check_model(network.model)
    found = in_double(network.model, image)
    scale = np.abs(wanted).max()
    shifted = 0.0
    for slot in channels.slots:
        indices = left.kept.get(slot.parameter, {}).get(slot.axis, [])
        if slot.role != "consumes" or not indices:
            continue
        wrong = dense[slot.parameter]
        for axis, own in left.kept[slot.parameter].items():
            moved = [(index + 1) % len(slot.ids) for index in own] if axis == slot.axis else own
            wrong = wrong.take(moved, axis)
        other = with_weights(onnx.ModelProto.FromString(network.model.SerializeToString()), {slot.parameter: wrong})
        shifted = max(shifted, float(np.abs(in_double(other, image) - wanted).max() / scale))
    return float(np.abs(found - wanted).max() / scale), shifted, channels, network


@pytest.mark.parametrize("idiom", PRUNABLE)
def test_the_pruned_graph_is_the_masked_one_and_a_shifted_one_is_not(idiom, tmp_path):
    operators, channels, weights = PRUNABLE[idiom]
    off, shifted, graph_before, network = pruned_and_masked(between(operators, channels, weights), tmp_path)
    after = ChannelGraph.trace(network, (1, 3, 8, 8))
    assert graph_before.unsupported == []
    assert off < 1e-10 and shifted > 1e-3
    assert after.flops() < graph_before.flops() and after.parameters() < graph_before.parameters()


@pytest.mark.parametrize(
    ("operators", "channels", "named"),
    [
        ("b = LRN <size: int = 3> (a)", 8, "LRN"),
        ("b = SpaceToDepth <blocksize: int = 2> (a)", 32, "SpaceToDepth"),
        ("b = CumSum(a, one)", 8, "CumSum"),
    ],
)
def test_an_operator_without_a_rule_is_named_and_its_channels_stay(operators, channels, named, tmp_path):
    model = between(operators, channels, {"one": [1]})
    found = ChannelGraph.trace(opened(model, tmp_path), (1, 3, 8, 8))
    assert found.unsupported == [named]
    assert found.prunable_groups == []


def test_a_size_that_went_into_arithmetic_keeps_its_channels(tmp_path):
    """An attention's C ** -0.5, which the graph computes from the size: pruned, it would be another number."""
    operators = "s = Shape <start: int = 1, end: int = 2> (a) c = Cast <to: int = 1> (s) d = Sqrt(c) b = Div(a, d)"
    assert ChannelGraph.trace(opened(between(operators), tmp_path), (1, 3, 8, 8)).prunable_groups == []


def test_old_opsets_are_read_by_their_own_meaning(tmp_path):
    """Axes are attributes there, and numbers of Split too."""
    body = (
        "a = Conv(x, w1) c = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (a)"
        " d = Unsqueeze <axes: ints = [2, 3]> (c) e = Mul(a, d) y = Conv(e, w2)"
    )
    model = graph(body, {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1)}, opset=11)
    off, shifted, channels, network = pruned_and_masked(model, tmp_path)
    assert off < 1e-10 and shifted > 1e-3 and channels.unsupported == []
    assert network.model.opset_import[0].version == 11


def test_layers_that_share_equal_biases_are_pruned_each_on_its_own(tmp_path):
    """Exporters write equal vectors once."""
    body = "a = Conv(x, w1, v) b = Relu(a) c = Conv(b, w3, v) d = Relu(c) y = Conv(d, w2)"
    model = graph(body, {"w1": (8, 3, 1, 1), "v": (8,), "w3": (8, 8, 1, 1), "w2": (4, 8, 1, 1)})
    off, shifted, channels, _ = pruned_and_masked(model, tmp_path)
    assert off < 1e-10 and shifted > 1e-3 and len(channels.prunable_groups) == 2
