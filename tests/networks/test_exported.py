"""A network that is an ONNX file: what it wants and gives is seen in it, and what cannot be read is one line."""

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from segslim.errors import UserError
from segslim.exported import ExportedNetwork, files_of
from segslim.pipeline.plan import plan
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import QUICK_PRUNING, TINY, config, last_report, segslim
from tests.networks.exported_graphs import between, graph, in_double

CONVOLUTION = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (3, 8, 1, 1), "b2": (3,)}
SCORES = "a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) {} = Conv(b, w2, b2)"


def saved(model, folder, name="net.onnx"):
    onnx.save(model, folder / name)
    return folder / name


def image(shape=(1, 3, 8, 8)):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def ids(network, x, shape=None):
    model = network.graph(shape or x.shape, "argmax")
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["argmax"], {session.get_inputs()[0].name: x})[0]


def given(file, x):
    session = onnxruntime.InferenceSession(str(file))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_of_sigmoids_the_largest_above_the_threshold_is_the_class_and_else_background(tmp_path):
    file = saved(graph(SCORES.format("s") + " y = Sigmoid(s)", CONVOLUTION), tmp_path)
    probability = given(file, image())
    wanted = np.where(probability.max(1) > 0.7, 1 + probability.argmax(1), 0)
    assert (ids(ExportedNetwork(file, 4, threshold=0.7), image()) == wanted).all()
    mapped = np.where(probability.max(1) > 0.7, np.array([2, 1, 1])[probability.argmax(1)], 0)
    for classes in ([2, 1, 1], {"skin": 2, "coat": 1, "hat": 1}):
        assert (ids(ExportedNetwork(file, 3, threshold=0.7, classes=classes), image()) == mapped).all()


@pytest.mark.parametrize(
    "end", ["y = Softmax <axis: int = 1> (s)", "y = Identity(s)", "y = Softmax <axis: int = 1> (s)"]
)
def test_of_scores_that_compete_the_largest_is_the_class(end, tmp_path):
    file = saved(graph(f"{SCORES.format('s')} {end}", CONVOLUTION), tmp_path)
    assert (ids(ExportedNetwork(file, 3), image()) == given(file, image()).argmax(1)).all()


def test_labels_are_read_as_the_scores_that_they_are_made_of(tmp_path):
    model = graph(SCORES.format("s") + " y = ArgMax <axis: int = 1> (s)", CONVOLUTION)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    file = saved(model, tmp_path)
    network = ExportedNetwork(file, 3)
    assert network.logits(image()).shape == (1, 3, 8, 8)
    assert (ids(network, image()) == given(file, image())[:, 0]).all()


def test_probabilities_without_an_operator_that_says_so_are_read_as_what_they_are_said_to_be(tmp_path):
    body = SCORES.format("s") + " p = Sigmoid(s) y = Mul(p, one)"
    file = saved(graph(body, {**CONVOLUTION, "one": 1.0}), tmp_path)
    network = ExportedNetwork(file, 4, kind="sigmoid")
    assert np.allclose(1 / (1 + np.exp(-network.logits(image())[:, 1:])), given(file, image()), atol=1e-5)


def test_bytes_channels_last_and_blue_first_are_fed_what_they_want(tmp_path):
    body = (
        "f = Cast <to: int = 1> (x) t = Transpose <perm: ints = [0, 3, 1, 2]> (f) c = Div(t, top)"
        " a = Conv(c, w1) y = Transpose <perm: ints = [0, 2, 3, 1]> (a)"
    )
    model = graph(body, {"w1": (3, 3, 1, 1), "top": 255.0}, shape="1,h,w,3")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    file = saved(model, tmp_path)
    network = ExportedNetwork(file, 3, order="bgr")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 10)).astype(np.float32)
    wanted = given(file, pixels[:, ::-1].transpose(0, 2, 3, 1).astype(np.uint8)).argmax(3)
    assert network.normalizes and network.input_size == (None, None)
    assert (ids(network, pixels) == wanted).all()


def test_a_graph_of_one_size_is_not_deployed_for_any(tmp_path):
    file = saved(graph(SCORES.format("y"), CONVOLUTION), tmp_path)
    with pytest.raises(UserError, match=r"export\.size=dynamic: .* takes images of 8 x 8 alone"):
        ExportedNetwork(file, 3).graph((None, 3, None, None), "argmax")


def test_a_graph_of_any_size_stays_so(tmp_path):
    file = saved(graph(SCORES.format("y"), CONVOLUTION, shape="n,3,h,w"), tmp_path)
    network, large = ExportedNetwork(file, 3), image((2, 3, 12, 20))
    assert (ids(network, large, (None, 3, None, None)) == given(file, large).argmax(1)).all()


def test_old_graphs_give_engines_what_new_ones_do(tmp_path):
    """Opset 11 has axes as attributes, and a softmax over all that follows."""
    body = SCORES.format("s") + " m = ReduceMean <axes: ints = [2, 3]> (s) y = Add(s, m)"
    file = saved(graph(body, CONVOLUTION, opset=11), tmp_path)
    assert (ids(ExportedNetwork(file, 3), image()) == given(file, image()).argmax(1)).all()


def many_inputs():
    model = between("b = Relu(a)")
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Relu", ["state"], ["unused"]))
    return model


def branching():
    model = between("b = Relu(a)")
    body = helper.make_graph([helper.make_node("Relu", ["a"], ["c"])], "body", [], [onnx.ValueInfoProto(name="c")])
    always = numpy_helper.from_array(np.array(True), "always")
    model.graph.initializer.append(always)
    model.graph.node.append(helper.make_node("If", ["always"], ["d"], then_branch=body, else_branch=body))
    return model


def of_another_domain():
    model = between("b = Relu(a)")
    model.graph.node[1].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def without_a_weight():
    model = between("b = Relu(a)")
    del model.graph.initializer[0]
    return model


def in_float16():
    model = between("b = Relu(a)")
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    return model


def elsewhere(location):
    def make():
        model = between("b = Relu(a)")
        weight = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(weight, location)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        return model

    return make


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda: graph("y = Relu(x)", {}, opset=9), {}, "is of opset 9; export it again with opset 11"),
        (many_inputs, {}, "has the inputs x, state; a network of one image has one"),
        (branching, {}, "If branches or loops"),
        (of_another_domain, {}, "Relu is an operator of com.microsoft"),
        (without_a_weight, {}, "onnx.checker refuses it"),
        (in_float16, {}, "w1 is of float16; export the network in float32"),
        (elsewhere("../w.bin"), {}, "its weights are in ../w.bin, which is not a file beside it"),
        (elsewhere("missing.bin"), {}, "its weights are in missing.bin, which is not a file beside it"),
        (lambda: graph("y = Relu(x)", {}, shape="1,3,4,8,8"), {}, "has 5 dimensions"),
        (lambda: between("b = Relu(a)"), {}, "its output has 4 channels (logits), and dataset.num_classes is 2"),
        (lambda: between("b = Relu(a)"), {"classes": [0, 1]}, "give the class of each, -1 for none"),
        (lambda: between("b = Relu(a)"), {"classes": [0, 1, 2, 1]}, "should be below dataset.num_classes=2"),
        (lambda: between("b = Relu(a)"), {"output": "z"}, "model.output.name=z"),
        (lambda: between("b = Relu(a)"), {"kind": "labels"}, "no ArgMax makes y"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(make, options, said, tmp_path):
    file = saved(make(), tmp_path)
    with pytest.raises(UserError) as error:
        ExportedNetwork(file, 2, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x07"])
def test_what_is_no_graph_is_called_so(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is no ONNX file"):
        ExportedNetwork(tmp_path / "net.onnx", 2)


def test_weights_beside_the_file_are_part_of_it(tmp_path):
    model = graph(SCORES.format("y"), CONVOLUTION)
    plain = saved(model, tmp_path, "plain.onnx")
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    assert files_of(tmp_path / "net.onnx") == [tmp_path / "net.onnx", tmp_path / "net.bin"]
    network = ExportedNetwork(tmp_path / "net.onnx", 3)
    assert np.array_equal(network.logits(image()), ExportedNetwork(plain, 3).logits(image()))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def typed(file, photos, *more):
    own = [key for key in TINY if key.startswith(("benchmark", "engine", "num_workers"))]
    return [
        *("model=exported", f"model.file={file}", "dataset=images", f"dataset.root={photos}", "dataset.num_classes=3"),
        *("dataset.size=[32,32]", "model.input.mean=[0.5,0.5,0.5]", "model.input.std=[0.5,0.5,0.5]", *own, *more),
    ]


def test_a_graph_is_pruned_and_made_int8_and_given_back_with_its_own_input_and_output(photos, tmp_path):
    weights = {"w1": (32, 3, 3, 3), "b1": (32,), "w3": (32, 32, 1, 1), "w2": (3, 32, 1, 1)}
    body = (
        "a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv(b, w3) d = Relu(c) s = Conv(d, w2)"
        " y = Softmax <axis: int = 1> (s)"
    )
    model = graph(body, weights, shape="n,3,h,w", opset=14)
    helper.set_model_props(model, {"author": "somebody"})
    file = saved(model, tmp_path)
    done = segslim(
        *typed(file, photos, "compress=prune_post_ptq", "compress.ratio=0.4", "compress.calibration.images=4"),
        *QUICK_PRUNING,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = last_report(tmp_path)
    folder = tmp_path / report["compressed"]["deployment"]
    assert report["compressed"]["flops"] < 0.65 * report["baseline"]["flops"]
    assert yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]["precision"] == "int8"
    whole = onnx.load(folder / "as_given.onnx")
    assert [each.name for each in (*whole.graph.input, *whole.graph.output)] == ["x", "y"]
    assert {each.key: each.value for each in whole.metadata_props} == {"author": "somebody"}
    assert whole.opset_import[0].version == 14
    x = image((1, 3, 32, 32))
    deployed = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(None, {"x": x})[0]
    assert (given(folder / "as_given.onnx", x).argmax(1) == deployed).mean() > 0.99
    assert any(node.op_type == "DequantizeLinear" for node in whole.graph.node)
    assert np.isfinite(in_double(ExportedNetwork(file, 3).model, x)).all()


def test_paddles_inference_model_is_converted_to_the_same_network(tmp_path):
    from segslim.deployment.export import export
    from segslim.stages.train import opened
    from tests.channels.small import Small, paddle

    paddle.seed(0)
    network = Small()
    export(network, tmp_path, size=(32, 32), output="logits")
    (tmp_path / "model.onnx").unlink()
    x = image((1, 3, 32, 32))
    network.eval()
    with paddle.no_grad():
        wanted = network(paddle.to_tensor(x))[0].numpy()
    chosen = ("model=exported", f"model.file={tmp_path}", "dataset=images", "dataset.root=.", "dataset.num_classes=2")
    assert np.abs(opened(config(*chosen)).logits(x) - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["compress=prune"], "compress=prune trains the network"),
        (["compress=quant"], "quantization-aware training trains it; give compress=ptq"),
        (["compress=prune_post", "compress.criterion=fisher"], "compress.criterion=fisher takes gradients; give obc"),
        (["compress=ptq", "model.input.mean=null"], "model.input.mean has no value: nothing in"),
        (["compress=ptq", "dataset.size=[64,32]"], "takes images of 32 x 32; give dataset.size=[32,32]"),
        (["compress=ptq", "train.checkpoint=a.pdparams"], "model=exported has its weights in model.file"),
    ],
)
def test_what_an_exported_graph_cannot_do_is_said_before_any_work(more, said, photos, tmp_path):
    file = saved(graph(SCORES.format("y"), CONVOLUTION, shape="1,3,32,32"), tmp_path)
    with pytest.raises(UserError) as error:
        plan(resolve(config(*typed(file, photos, *more))), STAGES)
    assert said in str(error.value) and "\n" not in str(error.value)
