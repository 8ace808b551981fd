"""Whatever the order in which stages are listed: one line before any work, or a deployment with all that was asked."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segslim.errors import UserError
from segslim.evaluation.latency import Ratio
from segslim.networks.checkpoint import Checkpoint
from segslim.paddle_compat import import_paddle
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.reporting.report import WANTED
from segslim.stages import STAGES
from segslim.stages.benchmark import advice
from segslim.stages.shared.fitting import _fit_options
from segslim.stages.strategy import resolve
from segslim.training.optimizer import divergence
from tests.command import config
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

SMALL = [
    *(*TOWER, "num_workers=0", "engine=onnxruntime", "stages.last=[export,select,evaluate]"),
    *("train.iters=4", "train.batch_size=2", "retrain.iters=2", "retrain.batch_size=2"),
]
SMALL_COMPRESS = {
    **{"compress.ratio": "0.26", "compress.align": "1", "compress.taylor.batches": "1"},
    **{"compress.analysis.images": "2", "compress.analysis.ratios": "[0.3,0.6]", "compress.calibration.images": "4"},
    **{"compress.fisher.images": "2", "compress.fisher.draws": "1", "compress.precisions": "[float32]"},
}
PARTS = (
    *(["score"], ["prune"], ["score", "prune"], ["score", "analyze", "prune"], ["retrain"], ["quantize"]),
    *(["quantize", "retrain"], ["export"], ["train"], ["data"], ["parity"], ["select"], ["evaluate"]),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def planned(store, stages, strategy, *more):
    small = [*SMALL, *(f"{key}={value}" for key, value in SMALL_COMPRESS.items())]
    listed = f"compress.stages=[{','.join(stages)}]"
    return plan(resolve(config(f"compress={strategy}", *small, f"store={store.root}", listed, *more)), STAGES, WANTED)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(st.sampled_from(PARTS), max_size=4),
    strategy=st.sampled_from(["prune_ptq", "prune_quant"]),
    parity=st.booleans(),
)
def test_any_order_is_refused_before_work_or_gives_all_that_it_lists(store, parts, strategy, parity):
    stages = [name for part in parts for name in part]
    try:
        steps = planned(store, stages, strategy, f"compress.after=[{'parity' if parity else ''}]")
    except UserError as error:
        assert "\n" not in str(error) and "compress." in str(error)
        return
    folders = {outcome.step.fingerprint: outcome.artifact.path for outcome in run(steps, store, Silent())}
    found = {kind: folders[step.fingerprint] for kind, step in steps.results.items()}
    assert ("deployment" in found) == (stages[:1] not in (["data"], ["train"]) or "export" in stages)
    if "deployment" in found:
        check(found, quantized="quantize" in stages, pruned="prune" in stages)


def check(found, quantized, pruned):
    """int8 where it was quantized, fewer FLOPs by the ratio where it was pruned, and the classes of its checkpoint."""
    model = onnx.load(found["deployment"] / "model.onnx")
    assert ("QuantizeLinear" in {node.op_type for node in model.graph.node}) == quantized
    flops = {
        k: json.loads((found[k] / "cost.json").read_text())["flops"] for k in ("deployment", "baseline_deployment")
    }
    gone = 1 - flops["deployment"] / flops["baseline_deployment"]
    assert gone == pytest.approx(0.26 if pruned else 0, abs=0.02)
    paddle, network = import_paddle(), Checkpoint.load(found["checkpoint"]).network()
    network.eval()
    image = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    logits = network(paddle.to_tensor(image))[0].numpy()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    deployed = session.run(None, {"x": image})[0]
    certain = np.abs(logits[:, 0] - logits[:, 1]) > 0.1 * np.abs(logits).max()  # int8 may turn what is nearly equal
    assert (deployed == logits.argmax(1))[certain].mean() > 0.99 if certain.any() else True


REFUSED = {
    "ranges that a retraining would invalidate": ("ptq", "[quantize,retrain]", "put quantize after"),
    "ranges of channels that go": ("prune_ptq", "[quantize,score,prune]", "put quantize after"),
    "parity of a float network": ("prune", "[score,prune,parity]", "put quantize before"),
    "scores of another checkpoint": ("prune_taylor", "[score,retrain,prune]", "put 'score' between"),
    "a file that is not of the last checkpoint": (
        "ptq",
        "[export,quantize] stages.last=[select]",
        "'export' stands bef",
    ),
    "a sensitivity that is measured later": (
        "prune",
        "[score,prune,score,analyze,prune] compress.criterion=l1_norm",
        "put 'analyze' before each",
    ),
    "work for nothing": ("prune_taylor", "[score,prune,train]", "nothing uses the checkpoint of 'prune'"),
    "metrics of another file": ("ptq", "[export,select,evaluate,quantize] stages.last=[export]", "stands before"),
}


@pytest.mark.parametrize(("strategy", "stages", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_ship_something_else_is_one_line_before_any_work(strategy, stages, words):
    typed = [
        f"compress={strategy}",
        *f"compress.stages={stages}".split(" "),
        "++compress.after=[]",
        "dataset.source.train_images=1",
    ]
    with pytest.raises(UserError, match=r"compress\.stages: ") as error:
        plan(resolve(config(*typed)), STAGES, WANTED)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_list_that_begins_with_data_is_all_that_runs():
    assert [name for name, _ in resolve(config("compress=ptq", "compress.stages=[data]"))] == ["data"]
    short, long = ("[quantize]", "[data,train,quantize,export,select,evaluate,benchmark,preview,parity]")
    plans = [plan(resolve(config("compress=ptq", f"compress.stages={s}")), STAGES, WANTED) for s in (short, long)]
    first, second = ({step.fingerprint for step in one.steps} for one in plans)
    assert first == second


def test_the_content_of_a_pretrained_file_is_part_of_the_training(tmp_path):
    file = tmp_path / "backbone.pdparams"

    def training():
        typed = config(f"model.network.pretrained={file}", "dataset.source.train_images=1")
        return next(s.fingerprint for s in plan(resolve(typed), STAGES).steps if s.stage.name == "train")

    file.write_bytes(b"one")
    first = training()
    assert training() == first
    file.write_bytes(b"two")
    assert training() != first


def test_weights_of_another_number_of_classes_are_trained_on_and_counted(tmp_path):
    def train(*typed):
        given = config(*SMALL, "compress=none", "compress.stages=[data,train]", f"store={tmp_path}", *typed)
        return run(plan(resolve(given), STAGES), Store(tmp_path), Silent())[-1].artifact

    checkpoint = f"train.checkpoint={train().path}"
    three = ["model.network.num_classes=3", "dataset.num_classes=3", "dataset.classes=null", "dataset.colours=null"]
    with pytest.raises(UserError, match=r"num_classes\? train\.ignore_mismatched_heads=true trains on"):
        train(*three, checkpoint)
    trained = train(*three, checkpoint, "train.ignore_mismatched_heads=true", "train.learning_rate=1e-9")
    before, after = (Checkpoint.load(str(path)).weights for path in (checkpoint.partition("=")[2], trained.path))
    same = [name for name in before if before[name].shape == after[name].shape]
    assert f"from {len(same)} of {len(after)} weights" in trained.manifest["result"] and len(same) < len(after)
    assert all(np.allclose(before[name], after[name], atol=1e-3) for name in same if "_" not in name)
    with pytest.raises(UserError, match=r"train\.checkpoint=FILE"):
        train("train.ignore_mismatched_heads=true")


@pytest.mark.parametrize(
    ("deployed", "another", "words"),
    [
        (Ratio(1.2, 1.1, 1.3), Ratio(0.5, 0.4, 0.6), "faster here: another, 50.0% less time"),
        (Ratio(1.2, 1.1, 1.3), Ratio(0.8, 0.5, 1.1), "deploy the dense network"),
        (Ratio(0.99, 0.9, 1.1), Ratio(0.99, 0.9, 1.1), "no engine here makes a difference"),
    ],
)
def test_the_advice_names_what_is_faster_for_sure(deployed, another, words):
    assert words in advice(deployed, {"another": another})


def test_a_diverged_training_of_int8_names_the_rate_that_was_typed():
    given = config("compress=quant", "retrain.learning_rate=100000")
    part = replace(given.retrain, learning_rate=10000.0, optimizer="sgd", freeze_batch_norm=False)
    told = str(divergence("the loss is nan", 3, _fit_options(given, part, labels=True, distills=False)))
    assert "give a lower retrain.learning_rate (it is 100000, of which 10000 is used)" in told
