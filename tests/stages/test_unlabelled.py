"""dataset=images: photographs without labels, and a network that is trained already."""

import json
from pathlib import Path

import pytest

from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import build_network
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.reporting.page import context, render
from segslim.reporting.report import WANTED, build_report
from segslim.reporting.terminal import comparison
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import config
from tests.data import layouts
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

NETWORK = {"_target_": "tests.channels.small.Tower", "num_classes": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photographs of noise, and checkpoints of two and of three classes."""
    root = tmp_path_factory.mktemp("unlabelled")
    for index in range(12):
        layouts.write_image(root / "photos" / f"{index % 3}" / f"{index}.png", seed=index)
    for classes in (2, 3):
        network = {**NETWORK, "num_classes": classes}
        Checkpoint.of_network(build_network(network, seed=1), network).save(root / f"{classes} classes")
    return root


SMALL = {
    "none": [],
    "prune": ["compress.ratio=0.25", "compress.align=1"],
    "quant": ["compress.calibration.images=4", "compress.precisions=[float32]"],
}
SMALL["prune_post"] = [*SMALL["prune"], "compress.reconstruct.images=8"]
SMALL["prune_distil"] = [*SMALL["prune_post"], "retrain.iters=2", "retrain.batch_size=2"]
SMALL["prune_post_ptq"] = [*SMALL["prune_post"], *SMALL["quant"]]


def typed(folder, strategy, *overrides):
    return config(
        *(*TOWER[:4], "dataset=images", f"dataset.root={folder / 'photos'}", "dataset.num_classes=2"),
        *(f"train.checkpoint={folder / '2 classes'}", f"store={folder / 'store'}", "num_workers=0"),
        *(
            "engine=onnxruntime",
            "benchmark.warmup=0",
            "benchmark.iters=2",
            "benchmark.seconds=0",
            f"compress={strategy}",
        ),
        *(*SMALL[strategy], *overrides),
    )


def reported(given):
    steps = plan(resolve(given), STAGES, WANTED)
    return build_report(given, steps, run(steps, Store(Path(given.store)), Silent()))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "prune_post_ptq", "prune_distil"])
def test_agreement_with_the_dense_network_is_reported_in_place_of_miou(folder, strategy):
    report = reported(typed(folder, strategy))
    predicted = next(Store(folder / "store").root.glob("artifacts/pseudo_label-*/manifest.json"))
    assert set(json.loads(predicted.read_text())["keys"]) >= {*STAGES["pseudo_label"].reads}
    dense, compressed = (report[role]["agreement"] for role in ("baseline", "compressed"))
    assert dense["equal_pixels"] == dense["miou"] == 1  # what is deployed is what has predicted
    assert 0 < compressed["miou"] <= compressed["equal_pixels"] <= 1
    assert report["change"]["agreement"] == compressed["miou"] - dense["miou"]
    assert report["compressed"]["miou"] is report["compressed"]["accuracy"] is report["change"]["miou"] is None
    names = [str(cell) for cell in comparison(report).columns[0].cells]
    assert not {"  mIoU", "  pixel accuracy"} & {*names}
    page = render("report.html", context(report))
    assert "mIoU against the dense network" in page and "of the labelled pixels" not in page


@pytest.mark.parametrize(
    ("strategy", "overrides", "words"),
    [
        ("prune_post", ["train.checkpoint=null"], "give the weights of one by train.checkpoint"),
        ("prune", ["compress.criterion=taylor", "compress.stages=[score,prune]"], "takes the gradients"),
        ("prune", ["compress.allocation=uniform"], "retrain learns from them; give compress=prune_distil"),
        ("quant", [], "retrain learns from them"),
        ("prune", ["compress.stages=[score,analyze,prune]", "compress.allocation=equal_loss"], "losses of mIoU"),
        ("prune_distil", ["retrain.distill.kind=none"], "distil learns from its teacher alone"),
        ("prune_distil", ["retrain.distill.teacher=nowhere"], "nowhere.*cannot be read|does not exist"),
        (
            "prune_distil",
            ["retrain.distill.teacher='{folder}/3 classes'"],
            "has 3 classes, and dataset.num_classes is 2",
        ),
    ],
)
def test_what_needs_labels_or_another_teacher_says_so_before_any_work(folder, strategy, overrides, words):
    with pytest.raises(UserError, match=words) as error:
        given = typed(folder, strategy, *(text.format(folder=folder) for text in overrides))
        plan(resolve(given), STAGES, WANTED)
    assert "\n" not in str(error.value)


def test_another_teacher_is_another_training_and_its_place_is_none(folder):
    def fingerprint(*teacher):
        steps = plan(resolve(typed(folder, "prune_distil", *teacher)), STAGES).steps
        return next(step.fingerprint for step in steps if step.label == "distil")

    (folder / "moved").symlink_to(folder / "2 classes")
    first, moved = (fingerprint(f"retrain.distill.teacher='{folder / name}'") for name in ("2 classes", "moved"))
    assert first == moved != fingerprint()


@pytest.mark.slow
def test_alike_images_leave_every_layer_as_it_was_and_a_pruned_checkpoint_is_its_own_baseline(folder):
    for index in range(12):
        layouts.write_image(folder / "alike" / f"{index}.png")
    given = typed(folder, "prune_post", f"dataset.root={folder / 'alike'}")
    steps, listener = plan(resolve(given), STAGES), Silent()
    made = {outcome.step.label: outcome.artifact for outcome in run(steps, Store(Path(given.store)), listener)}
    assert any("all 10 training images are alike" in warning for warning in listener.warnings)
    errors = Checkpoint.load(made["reconstruct"].path).measured["reconstruction"]
    assert {left for _, _, left in errors.values()} <= {
        *("the images are all alike", "its outputs are those of the dense network")
    }
    pruned = made["reconstruct"].path
    report = reported(typed(folder, "prune_post", f"train.checkpoint={pruned}", "compress.ratio=0.262"))
    before, after = report["baseline"]["flops"], report["compressed"]["flops"]
    assert after / before == pytest.approx(0.75, abs=0.02)
    assert "its own baseline" in next(stage["result"] for stage in report["stages"] if stage["name"] == "train")


def test_weights_that_are_not_finite_are_named(folder):
    given = Checkpoint.load(folder / "2 classes")
    given.with_weights({**given.weights, "head.bias": given.weights["head.bias"] * float("nan")}).save(folder / "nan")
    with pytest.raises(UserError, match=r"head\.bias holds values that are not finite"):
        Checkpoint.of_file(folder / "nan", NETWORK, seed=0)
