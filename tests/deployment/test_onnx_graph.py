"""A cleaned graph computes the same; a sliced file is that of the pruned network, or does not load."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from segslim.channels import ChannelGraph, prune
from segslim.channels.pruning import channels_of
from segslim.deployment.conversion import convert, save_inference_model
from segslim.deployment.export import export_onnx
from segslim.deployment.onnx_graph import simplify, slice_onnx
from tests.channels.networks import OTHERS, TUTORIAL
from tests.channels.proof import calibrate, paddle, random_kept
from tests.deployment.networks import TinyNetwork, random_images

SHAPE = (1, 3, 64, 64)
IMAGE = random_images(*SHAPE)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    folder = tmp_path_factory.mktemp("converted")
    model_file, params_file = save_inference_model(TinyNetwork(), folder, (1, 3, 20, 28), "logits")
    convert(model_file, params_file, folder / "raw.onnx", "TinyNetwork")
    return onnx.load(folder / "raw.onnx")


def clean(model: ModelProto) -> ModelProto:
    copy = ModelProto.FromString(model.SerializeToString())
    simplify(copy, "logits")
    return copy


def run(model: ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


def test_clean_graph_computes_the_same(converted: ModelProto) -> None:
    images = random_images(1, 3, 20, 28)
    assert np.allclose(run(clean(converted), images), run(converted, images), atol=1e-6)


def test_only_what_computes_is_left(converted: ModelProto) -> None:
    model = clean(converted)
    onnx.checker.check_model(model, full_check=True)
    computing = {"Conv", "BatchNormalization", "Transpose", "MatMul", "Resize", "Concat"}
    assert {node.op_type for node in model.graph.node} == computing
    used = {name for node in model.graph.node for name in node.input}
    assert used >= {tensor.name for tensor in model.graph.initializer}


def test_every_tensor_of_fixed_size_has_its_shape(converted: ModelProto) -> None:
    graph = clean(converted).graph
    made = {name for node in graph.node for name in node.output}
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in [*graph.value_info, *graph.output]
    }
    assert set(shapes) == made
    assert all(all(shape) for shape in shapes.values())
    assert shapes["logits"] == [1, 3, 20, 28]


def test_cleaning_twice_changes_nothing(converted: ModelProto) -> None:
    once = clean(converted)
    assert clean(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def sliced(name, folder, share=0.6):
    """The network, its graph, what is kept, and the sliced file beside the dense one."""
    paddle.seed(1)
    network = {**TUTORIAL, **OTHERS}[name]()
    graph = ChannelGraph.trace(network, SHAPE)
    calibrate(network, paddle.to_tensor(IMAGE), "float32")
    export_onnx(network, folder / "dense.onnx", SHAPE)
    kept = random_kept(graph, share, seed=3)
    channels = channels_of(graph, kept)
    tensors = graph.tensors
    groups = {tensors[f"{layer}.weight"]: number for layer, number in channels.groups.items()}
    cut = {tensors[parameter]: axes for parameter, axes in channels.kept.items()}
    slice_onnx(folder / "dense.onnx", folder / "sliced.onnx", cut, groups)
    return network, graph, kept


@pytest.mark.parametrize("name", ["fast_scnn", "bisenetv2", "ocrnet"])
def test_a_sliced_file_equals_the_pruned_networks(name, tmp_path):
    network, graph, kept = sliced(name, tmp_path)
    prune(network, graph, kept)
    network.eval()
    pruned, dense = network(paddle.to_tensor(IMAGE))[0].numpy(), run(onnx.load(tmp_path / "dense.onnx"), IMAGE)

    onnx.checker.check_model(str(tmp_path / "sliced.onnx"))
    assert np.abs(run(onnx.load(tmp_path / "sliced.onnx"), IMAGE) - pruned).max() < 1e-5 * np.abs(pruned).max()
    assert np.abs(dense - pruned).max() > 1e-2 * np.abs(pruned).max()
    assert (tmp_path / "sliced.onnx").stat().st_size < 0.7 * (tmp_path / "dense.onnx").stat().st_size


def test_a_network_that_reshapes_by_written_numbers_does_not_load(tmp_path):
    sliced("danet", tmp_path)
    with pytest.raises(Exception, match="Reshape"):
        run(onnx.load(tmp_path / "sliced.onnx"), IMAGE)
