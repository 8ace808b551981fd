"""The strategies that change the precision, by the command that a user types."""

import json

import onnx
import pytest
import yaml

from segslim.hardware import instruction_set
from tests.command import TINY, last_report, segslim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def run(folder, *arguments):
    answer = segslim(*TINY, *arguments, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return last_report(folder), answer


def test_ptq_deploys_an_int8_file_of_a_quarter_of_the_size(folder):
    words = ["model=fast_scnn", *(word for word in TINY if "model" not in word), "engine=auto"]
    answer = segslim(*words, "compress=ptq", "compress.calibration.images=4", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    report = last_report(folder)
    assert report["change"]["size"] < -0.7 and report["change"]["flops"] == report["change"]["params"] == 0
    deployment = folder / report["compressed"]["deployment"]
    deploy = yaml.safe_load((deployment / "deploy.yaml").read_text())["Deploy"]
    assert (deploy["precision"], deploy["model"]) == ("int8", "model.onnx")
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(deployment / "model.onnx").graph.node}
    assert not list(deployment.glob("*.pdiparams")) and deploy["target"] == instruction_set()
    assert f"int8 for {instruction_set()}, rest " in answer.stdout
    assert {left["op_type"] for left in json.loads((deployment / "quantization.json").read_text())["floats"]} == {
        "Resize",
        "ArgMax",
        "Cast",
    }


def test_quant_deploys_what_was_trained_with_fake_quantize_layers(folder):
    trained = ["compress=quant", "retrain.evaluate_start=false"]
    report, _ = run(folder, *trained, "compress.calibration.images=4", "engine=onnxruntime")
    assert report["change"]["size"] < -0.6
    (checkpoint,) = (folder / ".segslim" / "artifacts").glob("retrain-*")
    assert (checkpoint / "quantization.yaml").exists() and (checkpoint / "weight_scales.safetensors").exists()


def test_training_never_ends_below_the_int8_network_that_it_began_with(folder):
    destroyed = ["compress=quant", "retrain.learning_rate=1000", "compress.qat.learning_rate_factor=1"]
    options = ["compress.calibration.images=4", "engine=onnxruntime"]
    trained, _ = run(folder, *destroyed, *options)
    calibrated, _ = run(folder, "compress=ptq", *options)
    assert trained["compressed"]["miou"] >= calibrated["compressed"]["miou"]


@pytest.mark.parametrize("loss", [0.0, 0.9])
def test_the_fastest_that_keeps_the_bound_is_deployed(folder, loss):
    report, answer = run(
        folder, "compress=ptq", f"compress.miou_loss={loss}", "compress.calibration.images=4", "engine=onnxruntime"
    )
    (newest, *_) = sorted((folder / ".segslim" / "artifacts").glob("place-*"), key=lambda path: -path.stat().st_mtime)
    variants = json.loads((newest / "measured.json").read_text())["placement"]
    judged = [variant for variant in variants if variant["miou"] is not None]
    dense = report["baseline"]["miou"]
    chosen = min((v for v in judged if v["miou"] >= dense - loss), key=lambda variant: variant["latency_ms"])
    assert chosen["miou"] == pytest.approx(report["compressed"]["miou"], abs=1e-9)
    assert all(v["latency_ms"] > chosen["latency_ms"] for v in variants if v["miou"] is None)
    assert ("cannot be kept" in answer.stdout + answer.stderr) is False  # the float network keeps every bound


def test_an_observer_that_does_not_exist_is_refused_before_any_work(tmp_path):
    answer = segslim(*TINY, "compress=ptq", "compress.calibration.observer=median", cwd=tmp_path)
    assert answer.returncode == 2 and "should be one of abs_max, avg, hist, mse, emd, kl" in answer.stderr
    assert not list((tmp_path / ".segslim" / "artifacts").glob("*"))


def test_a_precision_that_no_engine_has_is_refused_with_what_there_is(tmp_path):
    answer = segslim(*TINY, "compress=fp16", "engine=onnxruntime", cwd=tmp_path)
    assert answer.returncode == 2 and "there is onnxruntime float32" in answer.stderr


def test_batch_norm_can_be_fused_before_the_training(folder):
    report, _ = run(
        folder,
        "compress=quant",
        "compress.qat.fuse_conv_bn=true",
        "compress.calibration.images=4",
        "engine=onnxruntime",
    )
    assert report["compressed"]["precision"].startswith("int8") and report["change"]["size"] < -0.6


def test_ranges_and_weights_are_the_same_bits_whatever_processes_are_asked_for(folder, tmp_path):
    options = ["compress=quant", "compress.calibration.images=4", "engine=onnxruntime"]
    run(folder, *options)
    run(tmp_path, *options, "retrain.processes=2")
    (by_two,) = (tmp_path / ".segslim" / "artifacts").glob("retrain-*")
    by_one = folder / ".segslim" / "artifacts" / by_two.name
    for file in ("weights.safetensors", "quantization.yaml"):
        assert (by_two / file).read_bytes() == (by_one / file).read_bytes()
