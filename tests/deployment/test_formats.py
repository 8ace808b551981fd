"""What is written beside the ONNX file gives what that gives, in its engine; what cannot be written is one line."""

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest

from segslim.deployment import formats
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import open_session
from segslim.deployment.export import export, export_onnx
from segslim.errors import UserError
from segslim.onnx_graph import LARGEST_HALF, halve_weights
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.export import check_formats
from tests.command import config
from tests.deployment.networks import TinyNetwork, build, logits_of, random_images

ALL = ["paddle", "onnx", "openvino", "mnn", "ncnn"]
OWN = {"openvino": "openvino.bin", "mnn": "model.mnn", "ncnn": "model.ncnn.bin"}
SIZE = (96, 64)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    return build("fast_scnn")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def deployed(network, folders):
    """{(output, fp16): a deployment in every format}."""
    wanted = [("argmax", False), ("softmax", False), ("logits", False), ("logits", True)]
    return {
        (output, fp16): export(
            network if output == "logits" else TinyNetwork(),
            folders / f"{output}-{fp16}",
            size=SIZE,
            output=output,
            formats=ALL,
            fp16=fp16,
            opset=17,
        )
        for output, fp16 in wanted
    }


def run(engine: str, deployment: Deployment) -> np.ndarray:
    session = open_session(engine, deployment, threads=1)
    return session.run({session.input_names[0]: random_images(1, 3, SIZE[1], SIZE[0])})[0]


@pytest.mark.parametrize("engine", OWN)
@pytest.mark.parametrize("output", ["argmax", "softmax", "logits"])
def test_every_format_gives_the_onnx_files_output(engine, output, deployed):
    deployment = deployed[output, False]
    assert (deployment.folder / OWN[engine]).is_file()
    given, expected = run(engine, deployment), run("onnxruntime", deployment)
    assert given.shape == expected.shape and given.dtype == expected.dtype
    assert (given == expected).mean() > 0.999 if output == "argmax" else np.allclose(given, expected, atol=1e-3)


def test_openvino_runs_its_own_file_where_there_is_one(deployed, folders):
    plain = replace(deployed["logits", False], folder=folders / "moved")
    deployed["logits", False].save(plain.folder)
    assert plain.openvino_file.name == "openvino.xml"
    (plain.folder / "model.onnx").unlink()
    assert run("openvino", plain).shape == (1, 2, 64, 96)


@pytest.mark.parametrize("engine", ["onnxruntime", *OWN])
def test_half_of_the_bytes_give_nearly_the_same(engine, deployed, network):
    whole, half = deployed["logits", False], deployed["logits", True]
    file = OWN.get(engine, "model.onnx")
    assert (half.folder / file).stat().st_size < 0.55 * (whole.folder / file).stat().st_size
    expected = logits_of(network, random_images(1, 3, SIZE[1], SIZE[0]))
    difference = np.abs(run(engine, half) - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < 0.05
    assert half.cost.size_bytes == (half.folder / "model.onnx").stat().st_size and half.cost.flops == whole.cost.flops


def test_a_weight_that_float16_cannot_hold_stays():
    large, small = np.full((2, 2), 2.0 * LARGEST_HALF, np.float32), np.ones((2, 2), np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "large"], ["y"]),
        onnx.helper.make_node("MatMul", ["y", "small"], ["z"]),
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in {"large": large, "small": small}.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "two", [], [], tensors))
    halve_weights(model)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types == {"large": onnx.TensorProto.FLOAT, "small:float16": onnx.TensorProto.FLOAT16}
    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul", "MatMul"]


def test_the_opset_is_the_one_that_was_asked_for(deployed):
    model = onnx.load(deployed["argmax", False].onnx_file)
    assert model.opset_import[0].version == 17
    onnx.checker.check_model(model)


def test_int8_formats_compute_what_the_onnx_file_does_and_what_has_none_is_said(tmp_path, caplog):
    network = TinyNetwork(bins=1)
    export_onnx(network, tmp_path / "float.onnx", (1, 3, 64, 96))
    tensors = [*(name for node in onnx.load(tmp_path / "float.onnx").graph.node for name in node.output), "x"]
    spec = QuantizationSpec(dict.fromkeys(tensors, (-4.0, 4.0)), compute=("float32",))
    deployment = export(network, tmp_path / "int8", size=SIZE, output="logits", quantization=spec, formats=ALL)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(":")[0] for line in said if "QuantizeLinear" in line] == ["ncnn"]
    names = {path.name for path in deployment.folder.iterdir()}
    assert {"openvino.xml", "model.mnn"} <= names and "model.ncnn.param" not in names
    with pytest.raises(UserError, match="engine ncnn does not compute in int8"):
        open_session("ncnn", deployment, threads=1)
    expected = run("onnxruntime", deployment)
    for engine in ("openvino", "mnn"):
        assert np.abs(run(engine, deployment) - expected).max() < 0.05 * np.abs(expected).max(), engine
    float_one = export(network, tmp_path / "float", size=SIZE, output="logits", formats=["onnx", "mnn"])
    assert np.abs(run("mnn", deployment) - run("mnn", float_one)).max() > 1e-3 * np.abs(expected).max()


def test_any_size_runs_at_two_sizes_and_not_in_ncnn(tmp_path):
    network = TinyNetwork()
    deployment = export(network, tmp_path, output="logits", formats=["onnx", "openvino", "mnn"])
    assert not (tmp_path / "model.pdiparams").exists()  # paddle was not asked for
    for shape in ((1, 3, 33, 47), (2, 3, 64, 32)):
        expected = logits_of(network, random_images(*shape))
        for engine in ("openvino", "mnn"):
            output = open_session(engine, deployment, threads=1).run({"x": random_images(*shape)})[0]
            assert np.allclose(output, expected, atol=1e-4), engine
    with pytest.raises(UserError, match=r"ncnn takes images of one size.*export\.size"):
        formats.check_formats(ALL, any_size=True)


def test_a_file_that_gives_another_output_is_refused_with_what_differs(tmp_path, monkeypatch):
    """A converter that loses something: here it writes another network's file."""
    export(TinyNetwork(), tmp_path / "other", size=SIZE, output="logits", formats=["onnx", "mnn"])
    content = (tmp_path / "other" / "model.mnn").read_bytes()
    losing = {**formats.CONVERTERS, "mnn": lambda file, half: file.with_name("model.mnn").write_bytes(content)}
    monkeypatch.setattr(formats, "CONVERTERS", losing)
    with pytest.raises(UserError, match=r"mnn gives another output.*differs by .* of the largest value.*leave mnn out"):
        export(TinyNetwork(), tmp_path / "made", size=SIZE, output="logits", formats=["onnx", "mnn"])
    with pytest.raises(UserError, match=r"deploy\.yaml"):
        Deployment.load(tmp_path / "made")


@pytest.mark.parametrize("name", ["mnn", "ncnn"])
def test_what_a_converter_does_not_know_is_one_line(name, tmp_path):
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    logits = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    node = onnx.helper.make_node("Nonesuch", ["x"], ["y"], domain="com.example")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "odd", [image], [logits])), tmp_path / "model.onnx")
    with pytest.raises(UserError) as error:
        formats.write_formats(tmp_path / "model.onnx", [name], half=False, int8=False)
        open_session(name, Deployment(tmp_path), threads=1)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_missing_package_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(formats.PACKAGES, "ncnn", ("ncnn", "nonesuch_pnnx"))
    with pytest.raises(UserError, match=r"ncnn needs nonesuch_pnnx: type `uv run --group ncnn"):
        check_formats(config("engine=ncnn"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["export.formats=[paddle]"], "should have onnx"),
        (["engine.candidates=[onnxruntime,mnn]"], r"engine\.candidates=mnn.*export\.formats=\[paddle,onnx,mnn\]"),
        (["engine=ncnn", "export.size=dynamic"], "ncnn takes images of one size"),
    ],
)
def test_formats_that_do_not_fit_are_refused_before_any_work(overrides, words):
    with pytest.raises(UserError, match=words):
        check_formats(config(*overrides))
    check_formats(config("engine=mnn", "export.size=dynamic"))
