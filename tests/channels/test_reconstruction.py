"""Reconstruction on small ONNX graphs whose answer is known: no Paddle is needed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from segslim.channels.reconstruction import reconstruct
from segslim.errors import UserError
from segslim.gram import Activations, layers_of

Weights = dict[str, np.ndarray]


def model_of(nodes: list[onnx.NodeProto], weights: Weights, output: str) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, None, None])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def with_weights(model: ModelProto, weights: Mapping[str, np.ndarray]) -> ModelProto:
    changed = ModelProto.FromString(model.SerializeToString())
    for tensor in changed.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return changed


def run(model: ModelProto, image: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0])


def photos(count: int = 12, size: int = 18, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(count, 1, 3, size, size)).astype(np.float32))


#: What reads the features: the second layer of every network here, by kind.
READERS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "conv": ("Conv", (5, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ("Conv", (5, 8, 3, 3), {"strides": [2, 2], "pads": [1, 0, 1, 0]}),
    "dilated": ("Conv", (5, 8, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "same": ("Conv", (5, 8, 4, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same_lower": ("Conv", (5, 8, 4, 4), {"auto_pad": "SAME_LOWER"}),
    "grouped": ("Conv", (6, 4, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (8, 1, 3, 3), {"group": 8, "strides": [2, 1]}),
    "transposed": ("ConvTranspose", (8, 5, 2, 2), {"strides": [2, 2]}),
    "transposed_overlapping": ("ConvTranspose", (8, 5, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "transposed_uneven": (
        "ConvTranspose",
        (8, 3, 3, 3),
        {"strides": [2, 3], "pads": [0, 1, 1, 0], "output_padding": [1, 1], "group": 2, "dilations": [1, 2]},
    ),
}


def two_layers(kind: str, seed: int = 1, bias: bool = True) -> ModelProto:
    operator, shape, options = READERS[kind]
    random = np.random.default_rng(seed)
    outputs = shape[0] if operator == "Conv" else shape[1] * options.get("group", 1)
    weights = {"first.w": random.normal(size=(8, 3, 3, 3)), "second.w": random.normal(size=shape)}
    nodes = [helper.make_node("Conv", ["x", "first.w"], ["f"]), helper.make_node("Relu", ["f"], ["r"])]
    if bias:
        weights["second.b"] = random.normal(size=outputs)
    nodes.append(helper.make_node(operator, ["r", "second.w", *(["second.b"] if bias else [])], ["y"], **options))
    return model_of(nodes, weights, "y")


def arrays(model: ModelProto) -> Weights:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("kind", READERS)
def test_a_layer_times_its_patches_is_its_output(kind: str) -> None:
    model = two_layers(kind)
    layer = layers_of(model)["second.w"]
    with Activations(model, photos(1)) as activations:
        activations.compute("r", "y")
        features, output = activations.read(0, "r"), activations.read(0, "y")
    positions = layer.positions(output, 60, np.random.default_rng(0))
    weight = arrays(model)["second.w"]
    computed = layer.patches(features, output, positions) @ layer.matrix(weight).swapaxes(1, 2)
    computed += arrays(model)["second.b"].reshape(layer.groups, 1, -1)
    np.testing.assert_allclose(computed, layer.outputs_at(output, positions), atol=1e-4)
    np.testing.assert_array_equal(layer.weight_of(layer.matrix(weight)), weight)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("bias", [True, False])
def test_weights_that_were_disturbed_are_found_again(kind: str, bias: bool) -> None:
    """Nothing is pruned: the dense weights are the only solution, and reconstruction finds them."""
    dense = two_layers(kind, bias=bias)
    true = arrays(dense)
    disturbed = {name: value + np.float32(0.3) for name, value in true.items() if name.startswith("second")}
    result = reconstruct(dense, with_weights(dense, disturbed), {}, photos(), ridge=1e-9)
    for name in disturbed:
        np.testing.assert_allclose(result.weights[name], true[name], atol=2e-3)
    assert result.errors["second.w"].after < 1e-3 < result.errors["second.w"].before
    assert "first.w" not in result.weights  # its inputs and outputs are those of the dense network


@pytest.mark.parametrize("constant", [0.0, 0.3, 1e-30])
def test_channels_that_never_change_are_solved_for(constant: float) -> None:
    """What a centred constant leaves is rounding, of any sign: no equation of its own."""
    dense = two_layers("depthwise")
    weights = arrays(dense)
    weights["first.w"] = weights["first.w"] * (np.arange(8) > 3)[:, None, None, None]
    weights["first.b"] = np.full(8, constant, np.float32)
    nodes = [*dense.graph.node]
    nodes[0].input.append("first.b")
    dense = model_of(nodes, weights, "y")
    disturbed = {"second.w": weights["second.w"] + np.float32(0.3)}
    result = reconstruct(dense, with_weights(dense, disturbed), {}, photos())
    assert all(np.isfinite(value).all() for value in result.weights.values())
    assert np.isfinite(result.errors["second.w"].before)
    found = run(with_weights(dense, disturbed | dict(result.weights)), photos(1, seed=3)[0])
    np.testing.assert_allclose(found, run(dense, photos(1, seed=3)[0]), atol=0.05)


@pytest.mark.parametrize("kind", ["MatMul", "MatMul with bias", "Gemm", "Gemm transposed"])
def test_linear_layers_are_found_again(kind: str) -> None:
    random = np.random.default_rng(4)
    weights = {"w": random.normal(size=(5, 3) if kind == "Gemm transposed" else (3, 5)), "b": random.normal(size=5)}
    nodes = [helper.make_node("Transpose", ["x"], ["rows"], perm=[0, 2, 3, 1])]
    if kind.startswith("Gemm"):
        weights["shape"] = np.array([-1, 3])
        nodes += [
            helper.make_node("Cast", ["shape"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["rows", "whole"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["y"], transB=int(kind == "Gemm transposed")),
        ]
    else:
        nodes.append(helper.make_node("MatMul", ["rows", "w"], ["y" if kind == "MatMul" else "m"]))
        nodes += [helper.make_node("Add", ["m", "b"], ["y"])] if kind != "MatMul" else []
    dense = model_of(nodes, weights, "y")
    disturbed = {"w": arrays(dense)["w"] + np.float32(0.2)}
    if kind != "MatMul":
        disturbed["b"] = arrays(dense)["b"] - np.float32(1)
    result = reconstruct(dense, with_weights(dense, disturbed), {}, photos(), ridge=1e-9)
    for name in disturbed:
        np.testing.assert_allclose(result.weights[name], arrays(dense)[name], atol=1e-3)


def redundant() -> tuple[ModelProto, ModelProto, dict[str, dict[int, list[int]]]]:
    """A dense network whose channels 4 to 7 are multiples of 0 to 3, and itself without them."""
    random = np.random.default_rng(2)
    first = random.normal(size=(4, 3, 3, 3))
    weights = {
        "first.w": np.concatenate([first, first * np.array([0.5, 2, 1, 3])[:, None, None, None]]),
        "second.w": random.normal(size=(5, 8, 3, 3)),
        "third.w": random.normal(size=(2, 5, 1, 1)),
    }
    statistics = {"scale": (4, 1.0), "shift": (4, 0.1), "mean": (4, 0.3), "variance": (4, 2.0)}
    norm = {name: np.full(5, value) for name, (_, value) in statistics.items()}
    nodes = [
        helper.make_node("Conv", ["x", "first.w"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Conv", ["r", "second.w"], ["s"]),
        helper.make_node("BatchNormalization", ["s", *norm], ["n"]),
        helper.make_node("Relu", ["n"], ["q"]),
        helper.make_node("Conv", ["q", "third.w"], ["y"]),
    ]
    dense = model_of(nodes, {**weights, **norm}, "y")
    kept = {"first.w": {0: [0, 1, 2, 3]}, "second.w": {1: [0, 1, 2, 3]}}
    few = {**weights, "first.w": weights["first.w"][:4], "second.w": weights["second.w"][:, :4]}
    return dense, model_of(nodes, {**few, **norm}, "y"), kept


def test_redundant_channels_are_made_up_for_exactly() -> None:
    dense, pruned, kept = redundant()
    result = reconstruct(dense, pruned, kept, photos(), ridge=1e-9)
    image = photos(1, seed=9)[0]
    expected = run(dense, image)
    assert np.abs(run(pruned, image) - expected).max() > 1
    np.testing.assert_allclose(run(with_weights(pruned, result.weights), image), expected, atol=0.01)


def test_a_lost_mean_goes_into_the_running_mean_of_batch_norm() -> None:
    """The dense layer has a bias that the pruned one has not: only the batch norm behind it can take the shift."""
    dense, _, _ = redundant()
    shifted = ModelProto.FromString(dense.SerializeToString())
    shifted.graph.node[2].input.append("second.b")
    shifted.graph.initializer.append(numpy_helper.from_array(np.arange(5, dtype=np.float32), "second.b"))
    result = reconstruct(shifted, dense, {}, photos(), ridge=1e-9)
    np.testing.assert_allclose(result.weights["mean"], arrays(dense)["mean"] - np.arange(5), atol=1e-3)


def test_large_layers_are_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, pruned, kept = redundant()
    monkeypatch.setattr("segslim.channels.reconstruction.LARGEST_GRAM", 10)
    error = reconstruct(dense, pruned, kept, photos(), ridge=1e-6).errors["second.w"]
    assert error.after < 0.5 * error.before


@pytest.mark.parametrize("memory", [0, 50_000])
def test_activations_on_disk_give_the_same_weights_bit_for_bit(memory: int) -> None:
    dense, pruned, kept = redundant()
    first, second = (reconstruct(dense, pruned, kept, photos(), memory=limit).weights for limit in (1 << 30, memory))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_only_the_parameters_named_change() -> None:
    dense, pruned, kept = redundant()
    result = reconstruct(dense, pruned, kept, photos(), tensors={"third.weight": "third.w"})
    assert set(result.weights) == {"third.w"}


def test_too_few_images_are_refused_by_their_number() -> None:
    dense, pruned, kept = redundant()
    with pytest.raises(UserError, match=r"7 images .* at least 8"):
        reconstruct(dense, pruned, kept, photos(7))


def test_images_that_are_all_alike_leave_the_layers_and_say_so() -> None:
    dense, pruned, kept = redundant()
    result = reconstruct(dense, pruned, kept, photos(1) * 12)
    assert not result.weights
    assert "alike" in result.errors["second.w"].left


def test_what_is_not_finite_is_named_by_its_layer() -> None:
    dense, pruned, kept = redundant()
    broken = arrays(dense)["second.w"].copy()
    broken[0] = np.nan
    with pytest.raises(UserError, match=r"second\.weight: .* not finite"):
        reconstruct(
            with_weights(dense, {"second.w": broken}), pruned, kept, photos(), tensors={"second.weight": "second.w"}
        )


def test_a_layer_whose_error_does_not_fall_is_left() -> None:
    """The inputs are noise, and nearly as many as the samples: what fits those makes others worse."""
    weights = {"w": np.random.default_rng(3).normal(size=(40, 3, 3, 3))}
    convolution = helper.make_node("Conv", ["z", "w"], ["y"], pads=[1, 1, 1, 1])
    dense = model_of([helper.make_node("Identity", ["x"], ["z"]), convolution], weights, "y")
    noise = helper.make_node("RandomNormalLike", ["x"], ["z"], seed=1.0)
    pruned = model_of([noise, convolution], {"w": np.zeros((40, 3, 3, 3))}, "y")
    result = reconstruct(dense, pruned, {}, photos(8, size=2), ridge=1e-9)
    assert "does not fall" in result.errors["w"].left
    assert not result.weights
