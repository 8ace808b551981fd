from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest

from segslim.channels import ChannelGraph, prune
from segslim.channels.sensitivity import masked_model
from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from tests.channels.networks import OTHERS, TUTORIAL
from tests.channels.proof import calibrate, paddle, random_kept
from tests.channels.random_networks import RandomNetwork

SHAPE = (1, 3, 64, 64)
RECIPES = {
    "sums, concats, groups": [
        ("Conv", 0, 0, 4),
        ("Grouped", 1, 0, 4),
        ("Sum", 1, 2, 3),
        ("Concat", 3, 1, 2),
        ("Depthwise", 4, 0, 3),
    ],
    "shuffle, gate, transposed": [
        ("Shuffle", 0, 0, 2),
        ("Squeeze", 1, 0, 3),
        ("Conv", 2, 0, 3),
        ("Transposed", 3, 0, 4),
    ],
    "attention": [("Conv", 0, 0, 4), ("Attention", 1, 0, 4), ("Conv", 2, 0, 4)],
}


def run(file, feeds):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


BUILDERS = {name: partial(RandomNetwork, recipe) for name, recipe in RECIPES.items()}
BUILDERS |= {name: {**TUTORIAL, **OTHERS}[name] for name in ("bisenetv2", "ocrnet", "danet")}


@pytest.fixture(scope="module", params=BUILDERS)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masking")
    paddle.seed(1)
    network = BUILDERS[request.param]()
    graph = ChannelGraph.trace(network, SHAPE)
    image = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    calibrate(network, paddle.to_tensor(np.concatenate([image, -image])), "float32")
    export_onnx(network, folder / "dense.onnx", SHAPE)
    return (
        network,
        graph,
        image,
        folder / "dense.onnx",
        masked_model(folder / "dense.onnx", folder / "masked.onnx", graph),
    )


def test_a_masked_run_equals_the_pruned_network(case):
    network, graph, image, dense, masked = case
    whole = run(dense, {"x": image})
    np.testing.assert_allclose(run(masked.file, {"x": image, **masked.masks({})}), whole, rtol=1e-4, atol=1e-5)

    kept = random_kept(graph, 0.6, seed=3)
    removed = {group.name: np.setdiff1d(np.arange(group.size), kept[group.name]) for group in graph.prunable_groups}
    ours = run(masked.file, {"x": image, **masked.masks(removed)})
    channels = prune(network, graph, kept)
    network.eval()
    pruned = network(paddle.to_tensor(image))[0].numpy()

    assert channels.kept
    assert np.abs(ours - pruned).max() < 1e-4 * np.abs(pruned).max()
    assert np.abs(whole - pruned).max() > 1e-2 * np.abs(pruned).max()


def test_the_masked_file_is_valid_onnx(case):
    onnx.checker.check_model(str(case[-1].file))


def test_a_layer_that_is_not_found_is_named(case, tmp_path):
    _, graph, _, dense, _ = case
    model = onnx.load(dense)
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "QLinearConv"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(UserError, match="reads channels, but no layer of the ONNX file"):
        masked_model(tmp_path / "strange.onnx", tmp_path / "masked.onnx", graph)
