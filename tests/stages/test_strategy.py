"""What of a strategy runs, in which order, and what each stage sees of the config."""

import pytest

from segslim.errors import UserError
from segslim.hardware import instruction_set
from segslim.pipeline.plan import plan
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from segslim.stages.train import settled
from segslim.training.optimizer import relative_rate
from tests.command import config
from tests.training.toy import toy_network


def named(*overrides):
    return [name for name, _ in resolve(config(*overrides))]


def test_without_a_schedule_the_stages_are_those_of_the_config():
    dense = config("export.target=vnni")
    pruned = config(
        "export.target=vnni", "compress=prune", "compress.allocation=equal_loss", "compress.criterion=l1_norm"
    )
    first, last = ["data", "train"], ["export", "select", "evaluate", "benchmark", "preview"]
    assert resolve(dense) == [(name, dense) for name in (*first, *last)]
    assert resolve(pruned) == [(name, pruned) for name in (*first, *pruned.compress.stages, *last)]


def test_the_target_is_this_machines_where_none_is_named():
    (_, decided), *_ = resolve(config("compress=ptq"))
    assert decided.export.target == instruction_set()


def test_a_schedule_repeats_the_pruning_at_rising_ratios():
    measured = ["compress.allocation=equal_loss", "compress.ratio=0.4"]
    steps = resolve(config("compress=prune", *measured, "compress.schedule=[0.5,1]"))
    once = ["score", "analyze", "prune", "reconstruct"]
    assert [name for name, _ in steps] == [
        *("data", "train", *once, *once, "retrain", "export", "select", "evaluate", "benchmark", "preview")
    ]
    assert [seen.compress.ratio for name, seen in steps if name == "prune"] == [0.2, 0.4]
    assert steps[-1][1].compress.ratio == 0.4


def test_a_step_ends_with_the_first_reconstruct_or_else_retrain_or_else_prune():
    stages = "compress.stages=[prune,retrain,retrain]"
    assert named("compress=prune", stages, "stages.last=[export]", "compress.schedule=[0.5,1]") == [
        *("data", "train", "prune", "retrain", "prune", "retrain", "retrain", "export")
    ]
    stages = "compress.stages=[score,prune]"
    assert named("compress=prune", stages, "stages.last=[export]", "compress.schedule=[0.5,1]") == [
        *("data", "train", "score", "prune", "score", "prune", "export")
    ]


@pytest.mark.parametrize(
    ("typed", "allocation", "criterion"),
    [
        ([], "global", "obc"),
        (["compress.stages=[score,prune]"], "global", "fisher"),
        (["compress.criterion=fpgm"], "equal_loss", "fpgm"),
        (["compress.criterion=taylor"], "global", "taylor"),
        (["compress.criterion=fpgm", "compress.stages=[score,prune]"], "global", "fpgm"),
        (["compress.allocation=equal_loss"], "equal_loss", "l1_norm"),
        (["compress.allocation=uniform"], "uniform", "l1_norm"),
    ],
)
def test_auto_becomes_what_suits_the_stages_and_what_was_typed(typed, allocation, criterion):
    steps = resolve(config("compress=prune", *typed))
    assert {(seen.compress.allocation, seen.compress.criterion) for _, seen in steps} == {(allocation, criterion)}
    assert ("analyze" in [name for name, _ in steps]) == (allocation == "equal_loss")


@pytest.mark.parametrize(
    ("typed", "quantized"), [("ptq", ["quantize"]), ("prune_quant compress.ratio=0.2", ["quantize", "retrain"])]
)
def test_a_bound_on_the_miou_places_what_was_quantized(typed, quantized):
    def names(*bound):
        return [name for name, _ in resolve(config(*f"compress={typed}".split(), *bound))]

    bounded = names("compress.miou_loss=0.003")
    at = bounded.index("place")
    assert bounded[at - len(quantized) : at] == quantized and bounded[:at] + bounded[at + 1 :] == names()
    assert "place" not in names("compress.miou_loss=0.003", "compress.keep_float=auto")


def test_nothing_is_analyzed_that_nothing_reads():
    assert "analyze" in named("compress=prune", "compress.allocation=equal_loss")
    assert "analyze" not in named("compress=prune")


def test_a_network_for_any_size_is_deployed_and_judged_without_a_resize_and_trained_with_it():
    typed = ["dataset=file_list", "dataset.root=d", "dataset.num_classes=2", "export.size=dynamic"]
    kinds = {
        name: [node["_target_"].rpartition(".")[2] for node in seen.dataset.val_transforms]
        for name, seen in resolve(config(*typed))
    }
    assert kinds["export"] == kinds["evaluate"] == ["Normalize"] and kinds["train"] == ["Resize", "Normalize"]


def test_retraining_the_first_half_is_shared_by_schedules_that_begin_alike():
    def fingerprints(schedule):
        stages = "compress.stages=[score,prune,retrain]"
        typed = config(
            "compress=prune_taylor", stages, f"compress.schedule={schedule}", "dataset.source.train_images=1"
        )
        return [step.fingerprint for step in plan(resolve(typed), STAGES).steps]

    two, three = fingerprints("[0.5,1]"), fingerprints("[0.5,0.75,1]")
    assert two[:5] == three[:5] and two[5] == three[5] and two[6] != three[6]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["compress.schedule=[1,0.5]"], r"compress.schedule=\[1, 0.5\]: should rise to 1, as \[0.5, 1\] does"),
        (["compress.schedule=[0.5]"], r"compress.schedule=\[0.5\]: should rise to 1"),
        (["compress.schedule=[0,1]"], r"compress.schedule.0=0: should be greater than 0"),
        (
            ["compress.allocation=fair"],
            r"compress.allocation=fair: should be 'auto', 'equal_loss', 'global' or 'uniform'",
        ),
        (["compress.taylor.batches=0"], r"compress.taylor.batches=0: should be greater than 0"),
    ],
)
def test_a_wrong_value_is_named(overrides, words):
    with pytest.raises(UserError, match=words):
        config("compress=prune", *overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["compress=prune_uniform", "compress.allocation=equal_loss"],
            "put 'analyze' before each 'prune', since compress.allocation is equal_loss, or give",
        ),
        (["compress=prune", "compress.stages=[prune]", "compress.allocation=uniform"], "needs an importance"),
        (["compress=prune_taylor", "compress.taylor=null"], "compress.taylor has no value: strategy 'prune_taylor'"),
    ],
)
def test_a_strategy_that_cannot_work_is_said_before_any_work(overrides, words):
    with pytest.raises(UserError, match=words):
        plan(resolve(config(*overrides)), STAGES)


def test_scores_by_data_are_made_anew_for_other_data_and_scores_by_weights_are_not():
    def score_of(*overrides):
        steps = plan(resolve(config(*overrides)), STAGES).steps
        return next(step.recipe for step in steps if step.stage.name == "score")

    other_batch = "retrain.batch_size=7"
    assert score_of("compress=prune_taylor") != score_of("compress=prune_taylor", other_batch)
    assert score_of("compress=prune") == score_of("compress=prune", other_batch)


@pytest.mark.parametrize(
    ("typed", "trained", "labels", "expected"),
    [
        ([], True, True, ("adam", True, "logits")),
        (["retrain.distill.kind=none"], True, True, ("adam", True, "none")),
        (["retrain.learning_rate=0.01"], True, True, ("sgd", False, "none")),
        (["retrain.learning_rate=0.01"], True, False, ("sgd", False, "logits")),
        (["retrain.learning_rate=0.01", "retrain.freeze_batch_norm=true"], True, True, ("sgd", True, "none")),
        (["retrain.optimizer=sgd"], True, True, ("sgd", False, "none")),
        (["retrain.learning_rate=0.01", "retrain.distill.teacher=other"], True, True, ("sgd", False, "logits")),
        ([], False, True, ("sgd", False, "none")),
    ],
)
def test_retraining_takes_small_steps_from_a_trained_network_unless_a_rate_is_given(typed, trained, labels, expected):
    found = settled(config(*typed), toy_network(), labels, trained)
    assert (found.optimizer, found.freeze_batch_norm, found.distill.kind) == expected
    assert (found.augmentation == "flip") == (found.optimizer == "adam")
    given = "retrain.learning_rate=0.01" in typed
    by_weights = relative_rate(toy_network()) if found.optimizer == "adam" else config().dataset.recipe.learning_rate
    assert found.learning_rate == (0.01 if given else by_weights)
