import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from segslim.deployment import engines
from segslim.deployment.cost import by_layer, onnx_cost
from segslim.deployment.deployment import Deployment, Precision
from segslim.deployment.engines import Candidate, available, open_session, select
from segslim.deployment.export import export
from segslim.errors import UserError
from segslim.evaluation import measure
from segslim.paddle_compat import import_paddle
from tests.deployment.networks import TinyNetwork, logits_of
from tests.deployment.small_onnx import SIZE, random_images, write_onnx

paddle = import_paddle()


@pytest.fixture(scope="module")
def network():
    return TinyNetwork()


@pytest.fixture(scope="module")
def deployment(network, tmp_path_factory):
    formats = ["paddle", "onnx", "mnn", "ncnn"]
    return export(network, tmp_path_factory.mktemp("deployment"), size=SIZE, output="logits", formats=formats)


@pytest.mark.parametrize("engine", available())
@pytest.mark.parametrize("threads", [1, 2])
def test_engine_gives_the_networks_output_and_says_what_it_is(engine, threads, network, deployment):
    session = open_session(engine, deployment, threads=threads)
    assert session.input_names == ["x"]
    (output,) = session.run({"x": random_images()})
    assert np.allclose(output, logits_of(network, random_images()), atol=1e-5)
    description = session.describe()
    assert (description["name"], description["threads"], description["precision"]) == (engine, threads, "float32")
    assert description["device"] == "cpu" and description["version"][0].isdigit()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_an_engine_took_is_told_by_layer(engine, deployment):
    nodes = engines.node_times(engine, deployment, {"x": random_images()}, 2, threads=1, precision="float32")
    layers = by_layer(deployment.onnx_file, nodes)
    # OpenVINO does not say which convolution is the first one's, whose norm it splits
    assert set(list(onnx_cost(deployment.onnx_file, SIZE).layers)[engine == "openvino" :]) <= set(layers)
    assert sum(layers.values()) == pytest.approx(sum(node.ms for node in nodes)) and min(layers.values()) > 0


@pytest.mark.parametrize("engine", available())
def test_output_is_the_callers_to_keep(engine, deployment):
    session = open_session(engine, deployment, threads=1)
    first = session.run({"x": random_images()})[0]
    kept = first.copy()
    session.run({"x": -random_images()})
    assert np.array_equal(first, kept)


def test_paddle_engine_leaves_training_its_threads(deployment):
    """On another number of threads the product's sums are made in another order, and its last bits differ."""
    random = np.random.default_rng(0)
    left, right = (
        paddle.to_tensor(random.standard_normal(shape, dtype=np.float32)) for shape in ((8, 4096), (4096, 8))
    )
    before = paddle.matmul(left, right).numpy()
    session = open_session("paddle", deployment, threads=2)
    assert np.array_equal(paddle.matmul(left, right).numpy(), before)
    session.run({"x": random_images()})
    assert np.array_equal(paddle.matmul(left, right).numpy(), before)


def test_openvino_float32_is_float32_and_bfloat16_is_not(tmp_path):
    write_onnx(tmp_path / "network.onnx")
    images = {"x": random_images()}
    expected = open_session("onnxruntime", tmp_path / "network.onnx", threads=1).run(images)[0]
    exact = open_session("openvino", tmp_path / "network.onnx", threads=1).run(images)[0]
    assert np.abs(exact - expected).max() < 1e-5 * np.abs(expected).max()
    try:
        session = open_session("openvino", tmp_path / "network.onnx", threads=1, precision="bfloat16")
    except UserError as error:
        pytest.skip(str(error))
    rounded = session.run(images)[0]
    assert 1e-4 < np.abs(rounded - expected).max() / np.abs(expected).max() < 0.1
    assert session.describe()["precision"] == "bfloat16"


def test_all_engines_are_installed_for_these_tests():
    assert available() == ["paddle", "onnxruntime", "openvino", "mnn", "ncnn"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tensorflow", {"threads": 1}, "engine 'tensorflow' is unknown; choose one of paddle, onnxruntime, openvino"),
        ("onnxruntime", {"threads": 0}, "cannot run with 0 threads"),
        ("onnxruntime", {"threads": 1, "precision": "int4"}, "cannot do precision 'int4'.*choose one of float32"),
        ("openvino", {"threads": 1, "precision": "int4"}, "cannot do precision 'int4'.*choose one of float32"),
        ("paddle", {"threads": 1, "precision": "bfloat16"}, "cannot do precision 'bfloat16'.*choose one of float32"),
        ("openvino", {"threads": 1, "device": "tpu"}, "cannot do device 'tpu'.*choose one of cpu"),
        *((name, {"threads": 1, "int8": True}, "not compute in int8.*onnxruntime") for name in ("paddle", "ncnn")),
        *((name, {"threads": 1, "precision": "float16"}, "cannot do precision") for name in ("mnn", "ncnn")),
    ],
)
def test_what_cannot_be_opened_is_an_error_with_the_choices(name, options, message, deployment):
    if options.pop("int8", False):
        deployment = replace(deployment, precision=Precision("int8"))
    with pytest.raises(UserError, match=message):
        open_session(name, deployment, **options)


@pytest.mark.parametrize(("target", "warns"), [("vnni", True), ("arm", True), ("avx2", False), ("any", False)])
def test_a_file_for_other_processors_is_opened_with_a_warning(target, warns, deployment, monkeypatch, caplog):
    monkeypatch.setattr(engines, "instruction_set", lambda: "avx2")
    open_session("onnxruntime", replace(deployment, precision=Precision("int8", target=target)), threads=1)
    assert [("export.target=any" in said and target in said) for said in caplog.messages] == [True] * warns


@pytest.mark.parametrize("engine", available())
def test_a_missing_file_is_named(engine, tmp_path):
    with pytest.raises(UserError, match=r"model\.(onnx|json|mnn|ncnn\.param)"):
        open_session(engine, Deployment(tmp_path), threads=1)
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        open_session(engine, tmp_path / "none.onnx", threads=1)
    with pytest.raises(UserError, match=r"deploy\.yaml"):
        open_session(engine, tmp_path, threads=1)


def test_engine_that_is_not_installed_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="engine tensorrt is not installed: pip install tensorrt"):
        open_session("tensorrt", tmp_path, threads=1)


@pytest.fixture(scope="module", params=["logits", "argmax"])
def onnx_file(request, tmp_path_factory):
    file = tmp_path_factory.mktemp(request.param) / "network.onnx"
    write_onnx(file, request.param)
    return file


@pytest.fixture
def reference(onnx_file):
    return open_session("onnxruntime", onnx_file, threads=1).run({"x": random_images()})[0]


def chosen(file, engines, reference):
    def ranking(runs):
        timed = {candidate: measure({"": run}, 1, 3)[""].median for candidate, run in runs.items()}
        return dict(sorted(timed.items(), key=lambda item: item[1]))

    candidates, inputs = [Candidate(engine) for engine in engines], {"x": random_images()}
    return select(file, candidates, threads=1, inputs=inputs, reference=reference, ranking=ranking)


def test_agreeing_engines_come_fastest_first_and_the_others_after_with_their_reasons(onnx_file, reference):
    choices = chosen(onnx_file, ["paddle", "openvino", "nonesuch", "onnxruntime"], reference)
    agreeing, excluded = choices[:2], choices[2:]
    assert {choice.candidate.engine for choice in agreeing} == {"openvino", "onnxruntime"}
    assert 0 < agreeing[0].latency_ms <= agreeing[1].latency_ms
    assert all(choice.excluded is None and choice.session["threads"] == 1 for choice in agreeing)
    assert {choice.candidate.engine: choice.excluded for choice in excluded}.keys() == {"paddle", "nonesuch"}
    assert "model.json" in excluded[0].excluded and "unknown" in excluded[1].excluded
    json.dumps([asdict(choice) for choice in choices])


def test_engine_that_computes_something_else_is_excluded(onnx_file, reference):
    other = reference.copy()
    other.flat[::100] += 1
    differs = r"onnxruntime: (only 9\d\.\d+% of the pixels|differs by .* of the largest value)"
    with pytest.raises(UserError, match=differs):
        chosen(onnx_file, ["onnxruntime"], other)
    with pytest.raises(UserError, match="output of shape"):
        chosen(onnx_file, ["onnxruntime"], reference[..., :-1])
    with pytest.raises(UserError, match="none was given"):
        chosen(onnx_file, [], reference)
