"""A quantization-aware training that is killed, or stopped, ends in the same weights and the same ranges."""

import os
import shutil
import signal

import pytest

from tests.command import TINY
from tests.faults.command import Typed, finished, forget, manifests, until

pytestmark = pytest.mark.slow
COMMAND = (
    *TINY,
    *("compress=quant", "compress.calibration.images=4", "retrain.iters=24", "retrain.eval_interval=12"),
)
CASES = [(signal.SIGKILL, 1), (signal.SIGTERM, 1000)]  # with nothing saved before, it is SIGTERM that saves


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(*COMMAND, cwd=folder)
    return folder


@pytest.mark.parametrize(("number", "interval"), CASES, ids=[number.name for number, _ in CASES])
def test_a_quantized_training_that_is_hit_ends_in_the_same_bits(undisturbed, tmp_path, number, interval, record):
    store = tmp_path / ".segslim"
    shutil.copytree(undisturbed / ".segslim", store)
    retraining = _forget_retraining(store)
    command = (*COMMAND, f"retrain.save_interval={interval}")
    scratch = store / "work" / retraining / "scratch"
    typed = Typed(*command, cwd=tmp_path)
    until(lambda: not typed.running or _rows(scratch / "curve.csv") > 2)
    os.kill(typed.pid, number)
    code = typed.wait()
    assert code == (-number if number == signal.SIGKILL else 128 + number), typed.stderr
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM: training is saved at iteration " in typed.stderr and typed.stderr.count("\n") == 1
    assert (scratch / "training.safetensors").exists()
    record(number.name, "a quantized training", code, 0)
    finished(*command, cwd=tmp_path)
    assert _result(store, retraining) == _result(undisturbed / ".segslim", retraining)


def _rows(curve):
    return curve.read_text().count("\n") if curve.exists() else 0


def _forget_retraining(store):
    """Takes it, and what follows from it, out of the store; returns its fingerprint."""
    (retraining,) = (key for key, manifest in manifests(store).items() if manifest["stage"] == "retrain")
    gone = {retraining}
    while len(gone) < len(gone := gone | _made_from(store, gone)):
        continue
    for fingerprint in gone:
        forget(store, fingerprint)
    return retraining


def _made_from(store, fingerprints):
    return {key for key, made in manifests(store).items() if fingerprints & set(made["recipe"]["parents"].values())}


def _result(store, retraining):
    files = manifests(store)[retraining]["files"]
    return {name: files[name] for name in ("weights.safetensors", "quantization.yaml")}
