"""What TensorRT is asked for is checked everywhere; that it runs, only where there is a GPU with it."""

import types

import pytest

from segslim.deployment.deployment import Deployment, Precision
from segslim.deployment.engines import open_session, tensorrt
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle

paddle = import_paddle()


def deployment(folder, input_shape=(1, 3, 64, 96), weights="float32"):
    return Deployment(folder, input_shape=input_shape, precision=Precision(weights))


class Recorder:
    """Takes the calls that a Config of this Paddle would refuse, being made for the CPU; only ones that it has."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        assert hasattr(paddle.inference.Config, name)
        return lambda *args, **kwargs: self.calls.__setitem__(name, (args, kwargs))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_engine_is_kept_and_computes_in_the_precision(tmp_path, precision):
    recorder, kinds = Recorder(), types.SimpleNamespace(Half="half", Float32="single")
    tensorrt.configure(recorder, deployment(tmp_path), precision, kinds)
    options = recorder.calls["enable_tensorrt_engine"][1]
    assert options["precision_mode"] == {"float32": "single", "float16": "half"}[precision]
    assert options["use_static"] and not options["use_calib_mode"]
    assert recorder.calls["set_optim_cache_dir"][0] == (str(tmp_path / "tensorrt"),)


def test_int8_in_paddles_own_format_is_asked_of_paddle(tmp_path):
    recorder, kinds = Recorder(), types.SimpleNamespace(Half="half", Float32="single", Int8="int8")
    tensorrt.configure(recorder, deployment(tmp_path, weights="int8"), "float16", kinds)
    options = recorder.calls["enable_tensorrt_engine"][1]
    assert options["precision_mode"] == "int8" and not options["use_calib_mode"]


def test_a_fixed_size_is_the_only_one(tmp_path):
    assert set(tensorrt.input_shapes(deployment(tmp_path)).values()) == {(1, 3, 64, 96)}


def test_a_dynamic_size_has_bounds_and_a_usual_size_between_them(tmp_path):
    dynamic = deployment(tmp_path, (None, 3, None, None))
    shapes = tensorrt.input_shapes(dynamic)
    assert list(shapes) == ["min", "opt", "max"] and shapes["min"] < shapes["opt"] < shapes["max"]
    recorder, kinds = Recorder(), types.SimpleNamespace(Half="half", Float32="single")
    tensorrt.configure(recorder, dynamic, "float32", kinds)
    least, largest, usual = (shape["x"] for shape in recorder.calls["set_trt_dynamic_shape_info"][0])
    assert least < usual < largest


def test_int8_is_asked_of_onnx_runtime(tmp_path):
    options = tensorrt.provider_options(deployment(tmp_path, weights="int8"), "float16")
    assert options["trt_int8_enable"] == options["trt_fp16_enable"] == options["trt_engine_cache_enable"] == "True"
    assert options["trt_profile_opt_shapes"] == "x:1x3x64x96" and all(isinstance(v, str) for v in options.values())


def test_where_it_cannot_run_the_remedy_is_named(tmp_path):
    with pytest.raises(UserError, match="engine tensorrt"):
        open_session("tensorrt", deployment(tmp_path), threads=1)


@pytest.mark.skipif(
    not paddle.device.is_compiled_with_cuda() or not paddle.device.cuda.device_count(),
    reason="TensorRT needs a GPU and a Paddle made for it: nothing was run",
)
def test_it_runs(tmp_path):
    from segslim.deployment.export import export
    from tests.deployment.networks import TinyNetwork, random_images

    export(TinyNetwork(), tmp_path, size=(64, 64), output="logits")
    image = random_images(1, 3, 64, 64)
    expected = open_session("onnxruntime", tmp_path, threads=1).run({"x": image})[0]
    session = open_session("tensorrt", tmp_path, threads=1, device="gpu")
    assert abs(session.run({"x": image})[0] - expected).max() < 1e-2 * abs(expected).max()
