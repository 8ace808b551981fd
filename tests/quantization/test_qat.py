import dataclasses

import numpy as np
import onnx
import pytest
from segslim.quantization.calibrate import ranges, watch
from segslim.quantization.table import Table

from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from segslim.quantization.qat import fake_quantize, learned, matching, plain_name
from segslim.quantization.qdq import quantize
from tests.quantization.graphs import run

paddle = import_paddle()
SHAPE = (1, 3, 32, 48)  # that of graphs.image
TRAINING = {
    "weight_quantize_type": "channel_wise_abs_max",
    "activation_quantize_type": "moving_average_abs_max",
    "weight_bits": 8,
    "activation_bits": 8,
    "moving_rate": 0.9,
    "quantizable_layer_type": ["Conv2D"],
    "pact": False,
    "fuse_conv_bn": False,
    "learning_rate_factor": 0.1,
}


class Network(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        nn = paddle.nn
        self.stem = nn.Sequential(nn.Conv2D(3, 8, 3, padding=1), nn.BatchNorm2D(8), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2D(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2D(8, 3, 1))

    def forward(self, x):
        return [self.head(self.stem(x))]


def build():
    paddle.seed(0)
    with paddle.utils.unique_name.guard():
        return Network()


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    file = tmp_path_factory.mktemp("graph") / "network.onnx"
    export_onnx(build(), file, SHAPE)
    return onnx.load(file)


def table(graph, **training):
    images = [np.random.default_rng(1).standard_normal(SHAPE, np.float32)]
    return Table(ranges(watch(graph, images, 1, False), "abs_max", 0), training={**TRAINING, **training})


def logits(network):
    network.eval()
    with paddle.no_grad():
        image = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
        return network(paddle.to_tensor(image))[0].numpy()


@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_the_deployed_graph_gives_what_the_fake_quantized_network_gives(graph, kind):
    known = table(graph, weight_quantize_type=kind)
    network = fake_quantize(build(), known, graph)
    int8 = onnx.ModelProto.FromString(graph.SerializeToString())
    quantize(int8, dataclasses.replace(learned(network, known, graph), form="int8"))
    expected, plain = logits(network), logits(build())
    (actual,) = run(int8)
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(plain - expected).max() > 1e-4 * np.abs(expected).max()


def test_a_training_step_moves_weights_and_ranges(graph):
    known = table(graph)
    network = fake_quantize(build(), known, graph)
    before = learned(network, known, graph)
    network.train()
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    network(paddle.to_tensor(3 * np.ones(SHAPE, np.float32)))[0].mean().backward()
    optimizer.step()
    after = learned(network, known, graph)
    assert after.ranges["x"][1] == pytest.approx(3.0) != before.ranges["x"][1]
    assert any((after.weights[name] != before.weights[name]).any() for name in after.weights)


def test_a_float_network_takes_the_weights_by_their_plain_names(graph):
    network = fake_quantize(build(), table(graph), graph)
    names = {plain_name(name) for name in network.state_dict()}
    assert set(build().state_dict()) <= names


def test_layers_kept_float_get_no_fake_quantize_layers(graph):
    keep = matching(build(), ["head.*"])
    assert len(keep) == 2
    network = fake_quantize(build(), dataclasses.replace(table(graph), keep_float=keep), graph)
    assert len([layer for layer in network.sublayers() if hasattr(layer, "_fake_quant_input")]) == 1


def test_a_pattern_that_fits_no_layer_is_refused():
    with pytest.raises(UserError, match=r"compress.keep_float=neck.*: fits no layer .* stem.0"):
        matching(build(), ["neck.*"])


def test_a_network_without_layers_of_the_types_is_refused(graph):
    with pytest.raises(UserError, match=r"quantizable_layer_type=\[Linear\]"):
        fake_quantize(build(), table(graph, quantizable_layer_type=["Linear"]), graph)


def test_pact_adds_a_clipping_that_is_trained(graph):
    network = fake_quantize(build(), table(graph, pact=True), graph)
    assert any("pact" in parameter.name for parameter in network.parameters())
