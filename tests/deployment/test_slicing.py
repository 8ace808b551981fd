"""A sliced file is that of the pruned network, or does not load."""

import numpy as np
import onnx
import onnxruntime
import pytest

from segslim.channels import ChannelGraph, shrink
from segslim.channels.shrink import channels_of
from segslim.deployment.export import export_onnx
from segslim.deployment.onnx_graph import slice_onnx
from tests.channels.networks import OTHERS, TUTORIAL
from tests.channels.proof import calibrate, paddle, random_kept

SHAPE = (1, 3, 64, 64)
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype("float32")


def run(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": IMAGE})[0]


def sliced(name, folder, share=0.6):
    """The network, its graph, what is kept, and the sliced file beside the whole one."""
    paddle.seed(1)
    network = {**TUTORIAL, **OTHERS}[name]()
    graph = ChannelGraph.trace(network, SHAPE)
    calibrate(network, paddle.to_tensor(IMAGE), "float32")
    export_onnx(network, folder / "whole.onnx", SHAPE)
    kept = random_kept(graph, share, seed=3)
    channels = channels_of(graph, kept)
    tensors = graph.tensors
    groups = {tensors[f"{layer}.weight"]: number for layer, number in channels.groups.items()}
    cut = {tensors[parameter]: axes for parameter, axes in channels.kept.items()}
    slice_onnx(folder / "whole.onnx", folder / "sliced.onnx", cut, groups)
    return network, graph, kept


@pytest.mark.parametrize("name", ["fast_scnn", "bisenetv2", "ocrnet"])
def test_a_sliced_file_equals_the_pruned_networks(name, tmp_path):
    network, graph, kept = sliced(name, tmp_path)
    shrink(network, graph, kept)
    network.eval()
    pruned, whole = network(paddle.to_tensor(IMAGE))[0].numpy(), run(tmp_path / "whole.onnx")

    onnx.checker.check_model(str(tmp_path / "sliced.onnx"))
    assert np.abs(run(tmp_path / "sliced.onnx") - pruned).max() < 1e-5 * np.abs(pruned).max()
    assert np.abs(whole - pruned).max() > 1e-2 * np.abs(pruned).max()
    assert (tmp_path / "sliced.onnx").stat().st_size < 0.7 * (tmp_path / "whole.onnx").stat().st_size


def test_a_network_that_reshapes_by_written_numbers_does_not_load(tmp_path):
    sliced("danet", tmp_path)
    with pytest.raises(Exception, match="Reshape"):
        run(tmp_path / "sliced.onnx")
