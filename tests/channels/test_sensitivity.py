"""The losses of single groups, and the masked ONNX file that measures them."""

from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest

from segslim.channels import ChannelGraph, Sensitivity, prune
from segslim.channels.sensitivity import masked_model, measure
from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from tests.channels.networks import OTHERS, TUTORIAL
from tests.channels.proof import calibrate, paddle, random_kept
from tests.channels.random_networks import RandomNetwork
from tests.channels.small import Chain

GRAPH = ChannelGraph.trace(Chain(), (1, 3, 8, 8))
IMPORTANCE = {"first": np.array([3.0, 1, 4, 1.5, 9, 2, 6, 5])}


def mious(removed):
    """Of all images, and then without the first and without the second."""
    loss = 0.01 * sum(IMPORTANCE["first"][removed.get("first", [])])
    return np.array([0.9 - loss, 0.9 - 2 * loss, 0.9])


def test_losses_are_those_of_the_least_channels_and_errors_those_of_leaving_out_one_image():
    sensitivity = measure(GRAPH, IMPORTANCE, [0.25, 0.5], mious)
    assert sensitivity.baseline == 0.9
    assert sensitivity.losses["first"] == pytest.approx({0.25: 0.025, 0.5: 0.075})
    assert sensitivity.errors["first"] == pytest.approx({0.25: 0.025, 0.5: 0.075})  # from twice the loss, and none
    of_one_image = measure(GRAPH, IMPORTANCE, [0.25], lambda removed: mious(removed)[:2])
    assert of_one_image.errors == {"first": {0.25: 0.0}}


def test_ratios_of_the_same_channel_count_are_evaluated_once():
    counts, progress = [], []

    def evaluate(removed):
        counts.append(len(removed.get("first", [])))
        return mious(removed)

    measure(GRAPH, IMPORTANCE, [0.01, 0.24, 0.25, 0.26, 1.0], evaluate, lambda *done: progress.append(done))
    assert counts == [0, 2, 7]  # unpruned, two channels, all but one
    assert progress[-1] == (2, 2)


def test_sensitivity_is_loaded_as_it_was_saved(tmp_path):
    sensitivity = measure(GRAPH, IMPORTANCE, [1 / 3, 0.5], mious)
    sensitivity.save(tmp_path)
    assert Sensitivity.load(tmp_path) == sensitivity


SHAPE = (1, 3, 64, 64)
SUMS = [("Conv", 0, 0, 4), ("Grouped", 1, 0, 4), ("Sum", 1, 2, 3), ("Concat", 3, 1, 2), ("Depthwise", 4, 0, 3)]
GATE = [("Shuffle", 0, 0, 2), ("Squeeze", 1, 0, 3), ("Conv", 2, 0, 3), ("Transposed", 3, 0, 4)]
ATTENTION = [("Conv", 0, 0, 4), ("Attention", 1, 0, 4), ("Conv", 2, 0, 4)]
BUILDERS = {
    "sums, concats, groups": partial(RandomNetwork, SUMS),
    "shuffle, gate, transposed": partial(RandomNetwork, GATE),
    "attention": partial(RandomNetwork, ATTENTION),
    **{name: {**TUTORIAL, **OTHERS}[name] for name in ("bisenetv2", "ocrnet", "danet")},
}


def run(file, inputs):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_masked_run_equals_the_pruned_network(name, tmp_path):
    paddle.seed(1)
    network = BUILDERS[name]()
    graph = ChannelGraph.trace(network, SHAPE)
    image = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    calibrate(network, paddle.to_tensor(np.concatenate([image, -image])), "float32")
    export_onnx(network, tmp_path / "dense.onnx", SHAPE)
    masked = masked_model(tmp_path / "dense.onnx", tmp_path / "masked.onnx", graph)
    onnx.checker.check_model(str(masked.file))
    dense = run(tmp_path / "dense.onnx", {"x": image})
    np.testing.assert_allclose(run(masked.file, {"x": image, **masked.masks({})}), dense, rtol=1e-4, atol=1e-5)

    kept = random_kept(graph, 0.6, seed=3)
    removed = {group.name: np.setdiff1d(np.arange(group.size), kept[group.name]) for group in graph.prunable_groups}
    ours = run(masked.file, {"x": image, **masked.masks(removed)})
    assert prune(network, graph, kept).kept
    network.eval()
    pruned = network(paddle.to_tensor(image))[0].numpy()

    assert np.abs(ours - pruned).max() < 1e-4 * np.abs(pruned).max()
    assert np.abs(dense - pruned).max() > 1e-2 * np.abs(pruned).max()


def test_a_layer_that_is_not_found_is_named(tmp_path):
    network = RandomNetwork(SUMS)
    export_onnx(network, tmp_path / "dense.onnx", SHAPE)
    model = onnx.load(tmp_path / "dense.onnx")
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "QLinearConv"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(UserError, match=r"steps\.0.*weight reads channels"):
        masked_model(tmp_path / "strange.onnx", tmp_path / "masked.onnx", ChannelGraph.trace(network, SHAPE))
