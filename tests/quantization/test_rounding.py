"""Equalization, rounding by Gram matrices and bias correction: each makes an int8 network more like its float one."""

import dataclasses

import numpy as np
import pytest

from segslim.quantization.calibration import activation_ranges, collect_statistics
from segslim.quantization.equalization import equalize
from segslim.quantization.graph import set_initializer
from segslim.quantization.qdq import quantize
from segslim.quantization.rounding import round_by_gram, round_weights
from segslim.quantization.saturation import MOST_IN_A_PAIR, largest_pairs
from segslim.quantization.spec import QuantizationSpec
from tests.quantization.graphs import image, run, segmentation_network

IMAGES = [image(seed) for seed in range(8)]


def error(model, spec):
    """Mean square difference to the float network's logits, on an image that was not calibrated on."""
    int8 = type(model).FromString(model.SerializeToString())
    quantize(int8, spec)
    return float(np.square(run(int8, "logits", seed=99)[0] - run(segmentation_network(), "logits", seed=99)[0]).mean())


def calibrated(model):
    return QuantizationSpec(activation_ranges(collect_statistics(model, IMAGES, 1), "mse", 1.0))


@pytest.fixture(scope="module")
def uneven():
    """A network one of whose channels is 100 times as large as the others, and makes up for it behind."""
    model = segmentation_network()
    values = {tensor.name: np.array(array) for tensor, array in initializers(model)}
    for name, axis, factor in (("head.bn0", 0, 100), ("head.bn1", 0, 100), ("logits.w", 1, 0.01)):
        index = [slice(None)] * values[name].ndim
        index[axis] = slice(0, 1)
        values[name][tuple(index)] *= factor
        set_initializer(model.graph, name, values[name].astype(np.float32))
    return model


def initializers(model):
    from onnx import numpy_helper

    return [(tensor, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer]


def test_an_equalized_network_computes_the_same_and_loses_less_to_int8(uneven):
    equalized = type(uneven).FromString(uneven.SerializeToString())
    changed = equalize(uneven, IMAGES, 1)
    for name, array in changed.items():
        set_initializer(equalized.graph, name, array)
    (before,), (after,) = run(uneven, "logits", seed=99), run(equalized, "logits", seed=99)
    assert {"head.bn0", "head.bn1", "logits.w"} <= set(changed)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
    assert error(equalized, calibrated(equalized)) < 0.2 * error(uneven, calibrated(uneven))


@pytest.mark.parametrize("options", [{}, {"gram": False, "bias": True}, {"bias": True}])
def test_rounded_weights_and_corrected_biases_lose_less(options):
    model = segmentation_network()
    spec = calibrated(model)
    rounded = round_weights(model, spec, IMAGES, **options)
    assert error(model, dataclasses.replace(spec, rounded=rounded)) < error(model, spec)


@pytest.mark.parametrize("target", ["avx2", "any"])
def test_rounding_keeps_the_pairs_that_kernels_add_within_their_bits(target):
    model = segmentation_network()
    spec = dataclasses.replace(calibrated(model), target=target)
    rounded = round_weights(model, spec, IMAGES)
    nodes = {node.input[1]: node for node in model.graph.node if node.op_type == "Conv"}
    for name, node in nodes.items():
        assert largest_pairs(node, rounded[f"{name}.int8"].astype(int), target).max() <= MOST_IN_A_PAIR
    assert error(model, dataclasses.replace(spec, rounded=rounded)) < error(model, spec)


def test_layers_that_stay_float_keep_their_weights_and_biases():
    model = segmentation_network()
    spec = calibrated(model)
    rounded = round_weights(model, spec, IMAGES, bias=True)
    kept = dataclasses.replace(spec, keep_float=("head.w", "logits.w"))
    without = {name: array for name, array in rounded.items() if not name.startswith(("head.w.", "logits.w."))}
    assert error(model, dataclasses.replace(kept, rounded=rounded)) == error(
        model, dataclasses.replace(kept, rounded=without)
    )


def test_rounding_by_a_gram_matrix_loses_less_of_the_outputs_than_the_nearest_integers():
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2, 400, 5)) @ random.standard_normal((2, 5, 24))  # 24 inputs of rank 5
    weight, steps = random.standard_normal((2, 8, 24)), np.full((2, 8, 24), 0.2)
    nearest = np.rint(weight / steps)
    found = round_by_gram(weight, steps, inputs.swapaxes(1, 2) @ inputs)

    def lost(integers):
        return np.square(inputs @ (weight - integers * steps).swapaxes(1, 2)).sum()

    assert np.array_equal(found, np.rint(found)) and lost(found) < 0.3 * lost(nearest)
