import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from paddleseg.deploy.infer import DeployConfig

from segslim.deployment import convertible
from segslim.deployment.cost import onnx_cost
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import open_session
from segslim.deployment.export import compare, export, export_onnx
from segslim.errors import UserError
from segslim.quantization.spec import QuantizationSpec
from tests.deployment.networks import (
    NETWORKS,
    Branch,
    TinyNetwork,
    build,
    logits_of,
    models,
    nn,
    paddle,
    random_images,
    relative_difference,
)

ENGINES = ("paddle", "onnxruntime", "openvino")
NORMALIZE = {"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def run(engine: str, deployment: Path, images: np.ndarray) -> np.ndarray:
    session = open_session(engine, deployment, threads=2)
    return session.run({session.input_names[0]: images})[0]


def test_deploy_yaml_is_what_paddleseg_reads_and_the_records_say_how_exact_and_how_dear_it_is(tmp_path: Path):
    resize = {"type": "Resize", "target_size": [96, 64]}
    deployment = export(TinyNetwork(), tmp_path, size=(96, 64), transforms=[resize, NORMALIZE])
    config = DeployConfig(str(tmp_path / "deploy.yaml"))
    assert Path(config.model).is_file() and Path(config.params).is_file()
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    assert config.transforms({"img": image})["img"].shape == (3, 64, 96)
    deploy = yaml.safe_load((tmp_path / "deploy.yaml").read_text())["Deploy"]
    assert deploy["input_shape"] == [1, 3, 64, 96]
    assert (deploy["output_op"], deploy["output_dtype"]) == ("argmax", "int32")
    assert deployment == Deployment.load(tmp_path) and deployment.report.difference < 1e-4
    assert (deployment.report.network, deployment.report.versions["paddle"]) == ("TinyNetwork", paddle.__version__)
    assert deployment.cost == onnx_cost(deployment.onnx_file, (96, 64)) and deployment.quantization is None


def test_quantized_export_is_int8_or_refused(tmp_path):
    network = TinyNetwork(bins=1)
    export_onnx(network, tmp_path / "float.onnx", (1, 3, 32, 48))
    float_graph = onnx.load(tmp_path / "float.onnx").graph
    tensors = [*(name for node in float_graph.node for name in node.output), "x"]
    table = QuantizationSpec(dict.fromkeys(tensors, (-1.0, 1.0)), compute=("float32",))
    every_layer = tuple(tensor.name for tensor in float_graph.initializer)
    for broken in (replace(table, ranges={}), replace(table, keep_float=every_layer)):
        with pytest.raises(UserError):
            export(network, tmp_path / "refused", size=(48, 32), output="logits", quantization=broken)
        with pytest.raises(UserError, match=r"deploy\.yaml"):
            Deployment.load(tmp_path / "refused")

    deployment = export(network, tmp_path / "int8", size=(48, 32), output="logits", quantization=table)
    assert (deployment.precision.weights, deployment.precision.compute) == (
        "int8",
        ("float32",),
    ) and deployment.quantization["integer_nodes"] > 0
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(deployment.onnx_file).graph.node}
    assert deployment.cost.size_bytes == deployment.onnx_file.stat().st_size
    assert deployment.cost.flops == onnx_cost(tmp_path / "float.onnx", (48, 32)).flops


@pytest.mark.parametrize("size", [(64, 32), (35, 21), None], ids=["multiple", "odd", "dynamic"])
def test_argmax_is_the_networks_class_of_every_pixel(size: Any, tmp_path: Path):
    network = TinyNetwork()
    export(network, tmp_path, size=size)
    for shape in [(1, 3, size[1], size[0])] if size else [(1, 3, 33, 47), (2, 3, 64, 32)]:
        images = random_images(*shape)
        expected = logits_of(network, images).argmax(1)
        for engine in ENGINES:
            classes = run(engine, tmp_path, images)
            assert classes.dtype == np.int32 and classes.shape == (shape[0], *shape[2:])
            assert (classes == expected).mean() > 0.999, engine


def test_softmax_is_that_of_the_logits(tmp_path: Path):
    network = TinyNetwork()
    export(network, tmp_path, size=(35, 21), output="softmax")
    images = random_images(1, 3, 21, 35)
    exponentials = np.exp(logits_of(network, images))
    for engine in ENGINES:
        probabilities = run(engine, tmp_path, images)
        assert np.allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), atol=1e-5), engine


def test_network_is_left_as_it_was(tmp_path: Path):
    network = TinyNetwork()
    network.train()
    network.stem.eval()
    pooling = nn.functional.adaptive_avg_pool2d
    layers = network.sublayers(include_self=True)
    modes = [layer.training for layer in layers]
    for size in ((35, 21), None):
        export(network, tmp_path, size=size)
        assert [layer.training for layer in layers] == modes
        assert not any("forward" in vars(layer) or layer._original_funcs for layer in layers)
    assert nn.functional.adaptive_avg_pool2d is pooling
    assert len(network(paddle.to_tensor(random_images(1, 3, 21, 35)))) == 2, (
        "in training mode it has its auxiliary head"
    )


def test_export_that_differs_from_its_network_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"TinyNetwork: the exported ONNX differs from the network by .*export"):
        export(TinyNetwork(), tmp_path, size=(64, 64), tolerance=0.0)


def test_unconvertible_operator_is_an_error_with_the_converters_words(tmp_path: Path):
    class LogGamma(nn.Layer):  # type: ignore[name-defined]
        def forward(self, x: Any) -> Any:
            return paddle.lgamma(x)

    with pytest.raises(
        UserError, match=r"TinyNetwork cannot be converted to ONNX: paddle2onnx .*(lgamma|unsupported operators)"
    ):
        export_onnx(TinyNetwork(LogGamma()), tmp_path / "model.onnx", (1, 3, 32, 32))


@pytest.mark.parametrize("size", [(32, 32), None], ids=["fixed", "dynamic"])
def test_control_flow_that_depends_on_tensors_is_exported_or_refused_but_never_wrong(size: Any, tmp_path: Path):
    with contextlib.suppress(UserError):  # paddle2onnx 2.1.0 cannot convert it
        assert export(TinyNetwork(Branch()), tmp_path, size=size).report.difference < 1e-5


def test_unknown_output_is_an_error_with_the_choices(tmp_path: Path):
    with pytest.raises(UserError, match=r"'classes'.*logits, softmax, argmax"):
        export(TinyNetwork(), tmp_path, size=(32, 32), output="classes")


def test_adaptive_pooling_needs_its_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fails when paddle2onnx is mended: then `average_by_matrices` can go."""
    monkeypatch.setattr(convertible, "REPLACEMENTS", {})
    with pytest.raises(UserError, match=r"differs from the network"):
        export(TinyNetwork(bins=3), tmp_path, size=(140, 100), output="logits")


class Unpooling(nn.Layer):  # type: ignore[name-defined]
    def forward(self, x: Any) -> Any:
        pooled, indices = nn.functional.max_pool2d(nn.functional.relu(x), 2, stride=2, return_mask=True)
        return nn.functional.max_unpool2d(pooled - 1, indices, 2, stride=2, output_size=x.shape)


class Enlarging(nn.Layer):  # type: ignore[name-defined]
    """As the end of ENet: the size of the image is asked for, one more than the convolution gives by itself."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv2DTranspose(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Any) -> Any:
        return self.up(nn.functional.max_pool2d(x, 2), output_size=x.shape[2:])


@pytest.mark.parametrize(("layer", "size"), [(Unpooling, (48, 32)), (Unpooling, (47, 33)), (Enlarging, (48, 32))])
def test_operators_that_the_converter_lacks_are_replaced_by_equal_ones(
    layer: Any, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second half fails when paddle2onnx is mended: then the replacement can go."""
    network = TinyNetwork(layer(), bins=1)
    images = random_images(1, 3, *size[::-1])
    export(network, tmp_path / "replaced", size=size, output="logits")
    assert relative_difference(run("onnxruntime", tmp_path / "replaced", images), logits_of(network, images)) < 1e-5
    monkeypatch.setattr(convertible, "REPLACEMENTS", {})
    with pytest.raises(UserError):
        export(network, tmp_path / "original", size=size, output="logits")


def test_operators_with_double_attributes_are_exact(tmp_path: Path):
    layers = [nn.GroupNorm(2, 8, epsilon=0.5), nn.LeakyReLU(0.3), nn.Softplus(), nn.Upsample(scale_factor=2)]
    network = TinyNetwork(*layers)
    export_onnx(network, tmp_path / "model.onnx", (1, 3, 20, 28))
    images = random_images(1, 3, 20, 28)
    assert relative_difference(run("onnxruntime", tmp_path / "model.onnx", images), logits_of(network, images)) < 1e-5


def test_initializers_keep_the_parameters_names(tmp_path: Path):
    network = TinyNetwork()
    file = tmp_path / "model.onnx"
    export_onnx(network, file, (1, 3, 32, 32))
    graph = onnx.load(file).graph
    deployed = {p.name for key, p in network.state_dict().items() if "auxiliary" not in key}
    assert deployed <= {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[1] for node in convolutions] == [network.stem[0].weight.name, network.head.weight.name]
    assert convolutions[0].input[2] == network.stem[0].bias.name
    assert [node.input[1] for node in graph.node if node.op_type == "BatchNormalization"] == [
        network.stem[1].weight.name
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, None) for name in NETWORKS),
        ("hardnet", (140, 100)),
        ("fcn_hrnet", (96, 64)),
    ],
)
def test_networks_export_exactly(name: str, size: tuple[int, int] | None, tmp_path: Path):
    network = build(name)
    report = export(network, tmp_path, size=size, output="logits")
    assert report.report.difference < 1e-4
    width, height = size or (109, 75)
    images = random_images(1, 3, height, width)
    expected = logits_of(network, images)
    for engine in ENGINES:
        assert relative_difference(run(engine, tmp_path, images), expected) < 1e-4, engine


def test_pspnet_pools_exactly_at_a_size_that_is_no_multiple_of_its_bins(tmp_path: Path):
    network = models.layers.PPModule(8, 4, bin_sizes=(1, 2, 3, 6), dim_reduction=True, align_corners=False)
    pyramid = nn.Sequential(nn.Conv2D(3, 8, 1), network)
    listed = _InList(pyramid)
    for size in ((32, 32), (48, 48), (35, 21), None):
        assert export(listed, tmp_path, size=size, output="logits").report.difference < 1e-5


class _InList(nn.Layer):  # type: ignore[name-defined]
    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> list[Any]:
        return [self.layer(x)]


IMAGES = random_images(1, 3, 20, 28)


@pytest.mark.parametrize("output", ["logits", "softmax", "argmax"])
def test_logits_are_compared_whatever_the_output_and_what_is_wrong_is_seen(output: str, tmp_path: Path):
    tiny, file = TinyNetwork(), tmp_path / "model.onnx"
    export_onnx(tiny, file, (1, 3, 20, 28), output)
    logits = logits_of(tiny, IMAGES)
    assert compare(file, output, lambda images: logits, [IMAGES]).relative < 1e-5
    shifted = compare(file, output, lambda images: logits * 1.01, [IMAGES])
    assert shifted.relative == pytest.approx(0.01 / 1.01, rel=1e-2) and shifted.equal_pixels == 1
    assert compare(file, output, lambda images: -logits, [IMAGES]).equal_pixels < 0.5
    with pytest.raises(UserError, match="the exported logits are"):
        compare(file, output, lambda images: logits[:, :2], [IMAGES])
    with pytest.raises(UserError, match="not finite"):
        compare(file, output, lambda images: logits * np.inf, [IMAGES])
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == tiny.head.weight.name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, file)
    assert compare(file, output, lambda images: logits, [IMAGES]).relative > 1e-2
