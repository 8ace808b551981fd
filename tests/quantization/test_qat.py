"""Fake-quantize layers: what they learn is what the deployed int8 graph computes."""

import dataclasses

import numpy as np
import onnx
import pytest

from segslim.deployment.conversion import deployed_network
from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from segslim.quantization.calibration import activation_ranges, collect_statistics
from segslim.quantization.qat import (
    can_save_paddle_int8,
    fake_quantize,
    fuse_conv_bn,
    learned,
    match_layers,
    plain_name,
    save_paddle_int8,
)
from segslim.quantization.qdq import quantize
from segslim.quantization.spec import QuantizationSpec
from tests.quantization.graphs import image, run

paddle = import_paddle()
IMAGE = image()
SHAPE = IMAGE.shape
OPTIONS = {
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


def spec_of(graph, **options):
    statistics = collect_statistics(graph, [IMAGE], 1, histogram=False)
    return QuantizationSpec(activation_ranges(statistics, "abs_max", 0), fake_quantize={**OPTIONS, **options})


def logits(network):
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(IMAGE))[0].numpy()


@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_the_deployed_graph_gives_what_the_fake_quantized_network_gives(graph, kind):
    spec = spec_of(graph, weight_quantize_type=kind)
    network = fake_quantize(build(), spec, graph)
    int8 = onnx.ModelProto.FromString(graph.SerializeToString())
    quantize(int8, dataclasses.replace(learned(network, spec, graph), activation_type="int8"))
    expected, plain = logits(network), logits(build())
    (actual,) = run(int8)
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(plain - expected).max() > 1e-4 * np.abs(expected).max()


def test_a_training_step_moves_weights_and_ranges(graph):
    spec = spec_of(graph)
    network = fake_quantize(build(), spec, graph)
    before = learned(network, spec, graph)
    network.train()
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    network(paddle.to_tensor(3 * np.ones(SHAPE, np.float32)))[0].mean().backward()
    optimizer.step()
    after = learned(network, spec, graph)
    assert after.ranges["x"][1] == pytest.approx(3.0) != before.ranges["x"][1]
    assert any((after.weight_scales[name] != before.weight_scales[name]).any() for name in after.weight_scales)


def test_a_float_network_takes_the_weights_by_their_plain_names(graph):
    network = fake_quantize(build(), spec_of(graph), graph)
    names = {plain_name(name) for name in network.state_dict()}
    assert set(build().state_dict()) <= names


def test_layers_kept_float_get_no_fake_quantize_layers(graph):
    keep = match_layers(build(), ["head.*"])
    assert len(keep) == 2
    network = fake_quantize(build(), dataclasses.replace(spec_of(graph), keep_float=keep), graph)
    assert len([layer for layer in network.sublayers() if hasattr(layer, "_fake_quant_input")]) == 1


def test_a_pattern_that_fits_no_layer_is_refused():
    with pytest.raises(UserError, match=r"compress.keep_float=neck.*stem.0"):
        match_layers(build(), ["neck.*"])


def test_a_network_without_layers_of_the_types_is_refused(graph):
    with pytest.raises(UserError, match=r"quantizable_layer_type=\[Linear\]"):
        fake_quantize(build(), spec_of(graph, quantizable_layer_type=["Linear"]), graph)


def test_pact_adds_a_clipping_that_is_trained(graph):
    network = fake_quantize(build(), spec_of(graph, pact=True), graph)
    assert any("pact" in parameter.name for parameter in network.parameters())


def with_random_norm(network):
    """A batch norm whose statistics and factors are not those of a new one."""
    random = np.random.default_rng(3)
    norm = network.stem[1]
    for tensor in (norm.weight, norm.bias, norm._mean, norm._variance):
        tensor.set_value(random.uniform(0.5, 2.0, tensor.shape).astype(np.float32))
    return network


def test_a_fused_batch_norm_only_adds_and_keeps_output_and_statistics(graph):
    before, fused = with_random_norm(build()), with_random_norm(build())
    assert fuse_conv_bn(fused, graph) == 1
    assert np.allclose(logits(fused), logits(before), rtol=1e-4, atol=1e-5)
    assert not np.allclose(fused.stem[0].weight.numpy(), before.stem[0].weight.numpy())
    expected = logits(fused)
    fused.train()
    assert np.allclose(fused(paddle.to_tensor(IMAGE))[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (fused.stem[1].weight.numpy() == 1).all() and (fused.stem[1]._mean.numpy() == 0).all()


writes_paddle_int8 = pytest.mark.skipif(not can_save_paddle_int8(), reason="Paddle 3 writes no int8 model of its own")


def predicted(folder, image):
    config = paddle.inference.Config(str(folder / "model.pdmodel"), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.reshape(image.shape)
    handle.copy_from_cpu(image)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


@writes_paddle_int8
@pytest.mark.parametrize("trained", [True, False])
def test_paddles_int8_model_gives_what_the_fake_quantized_network_gives(graph, tmp_path, trained):
    spec = spec_of(graph) if trained else QuantizationSpec(spec_of(graph).ranges)
    save_paddle_int8(build(), spec, graph, lambda n: deployed_network(n, "logits"), tmp_path / "int8", SHAPE, OPTIONS)
    expected = logits(fake_quantize(build(), spec_of(graph), graph))
    actual = predicted(tmp_path / "int8", IMAGE)
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(actual - logits(build())).max() > 1e-4 * np.abs(expected).max()


@writes_paddle_int8
def test_the_weights_of_paddles_int8_model_are_int8(graph, tmp_path):
    folder = tmp_path / "int8"
    save_paddle_int8(build(), spec_of(graph), graph, lambda n: deployed_network(n, "logits"), folder, SHAPE, OPTIONS)
    bytes_of_floats = 4 * sum(int(np.prod(p.shape)) for p in build().parameters())
    assert (folder / "model.pdiparams").stat().st_size < 0.8 * bytes_of_floats
