import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segslim.deployment.export import export
from segslim.deployment.engines import available, open_session
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from tests.deployment.networks import TinyNetwork, logits_of
from tests.engines.deployments import SIZE, random_images, write_onnx

paddle = import_paddle()
ONNX_ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def network():
    return TinyNetwork()


@pytest.fixture(scope="module")
def deployment(network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    export(network, folder, size=SIZE, output="logits")
    return folder


@pytest.mark.parametrize("engine", available())
@pytest.mark.parametrize("threads", [1, 2])
def test_engine_gives_the_networks_output_and_says_what_it_is(engine, threads, network, deployment) -> None:
    session = open_session(engine, deployment, threads=threads)
    assert session.input_names == ["x"]
    (output,) = session.run({"x": random_images()})
    assert np.allclose(output, logits_of(network, random_images()), atol=1e-5)
    description = session.describe()
    assert (description["name"], description["threads"], description["precision"]) == (engine, threads, "float32")
    assert description["device"] == "cpu" and description["version"][0].isdigit()


@pytest.mark.parametrize("engine", available())
def test_output_is_the_callers_to_keep(engine, deployment) -> None:
    session = open_session(engine, deployment, threads=1)
    first = session.run({"x": random_images()})[0]
    kept = first.copy()
    session.run({"x": -random_images()})
    assert np.array_equal(first, kept)


def test_paddle_engine_leaves_training_its_threads(deployment) -> None:
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


@pytest.mark.parametrize("engine", ONNX_ENGINES)
def test_onnx_engines_read_a_bare_file(engine, tmp_path) -> None:
    write_onnx(tmp_path / "network.onnx")
    session = open_session(engine, tmp_path / "network.onnx", threads=1)
    assert session.run({"x": random_images()})[0].shape == (1, 3, SIZE[1], SIZE[0])


def test_openvino_float32_is_float32_and_bfloat16_is_not(tmp_path) -> None:
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


def test_all_engines_are_installed_for_these_tests() -> None:
    assert available() == ["paddle", "onnxruntime", "openvino"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tensorflow", {"threads": 1}, "engine 'tensorflow' is unknown; choose one of paddle, onnxruntime, openvino"),
        ("onnxruntime", {"threads": 0}, "cannot run with 0 threads"),
        ("onnxruntime", {"threads": 1, "precision": "int4"}, "cannot do precision 'int4'.*choose one of float32"),
        ("openvino", {"threads": 1, "precision": "int4"}, "cannot do precision 'int4'.*choose one of float32"),
        ("paddle", {"threads": 1, "precision": "bfloat16"}, "cannot do precision 'bfloat16'.*choose one of float32"),
        ("openvino", {"threads": 1, "device": "tpu"}, "cannot do device 'tpu'.*choose one of cpu"),
        ("paddle", {"threads": 1}, "holds no model.json or model.pdmodel"),
        ("onnxruntime", {"threads": 1}, "model.onnx does not exist"),
    ],
)
def test_what_cannot_be_opened_is_an_error_with_the_choices(name, options, message, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        open_session(name, tmp_path, **options)


def test_engine_that_is_not_installed_is_an_error(monkeypatch, tmp_path) -> None:
    with pytest.raises(UserError, match="engine tensorrt is not installed: pip install tensorrt"):
        open_session("tensorrt", tmp_path, threads=1)


def test_onnx_engines_need_no_paddle() -> None:
    modules = "segslim.deployment.engines.onnx_runtime, segslim.deployment.engines.openvino, segslim.deployment.engines.selection"
    code = f"import sys, {modules}; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
