import dataclasses
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.channels import prune_by_ratio
from segslim.errors import UserError
from segslim.training.files import read_snapshot
from segslim.training.loop import FitOptions, Progress
from segslim.training.losses import Distillation, Losses, build_losses, distillation_loss, segmentation_loss
from tests.training.toy import (
    ADAM,
    AVERAGED,
    CROSS_ENTROPY,
    DISTILLING,
    FROZEN,
    OPTIONS,
    paddle,
    state_of,
    toy_batch,
    toy_batches,
    toy_fit,
    toy_network,
)


class Stop(Exception):
    """What a test ends a training with."""


def _stop_after(iteration: int) -> Callable[[Progress], None]:
    def progress(at: Progress) -> None:
        if at.iteration == iteration:
            raise Stop

    return progress


def test_training_learns(tmp_path: Path) -> None:
    network = toy_network()
    result = toy_fit(tmp_path, network, FitOptions(iters=60, learning_rate=0.1))
    assert result.best_miou is not None and result.best_miou > 0.95
    losses = [entry["loss"] for entry in result.history]
    assert losses == sorted(losses, reverse=True) and len(losses) == 4
    assert not network.training


def test_best_weights_are_in_the_network_at_the_end_whichever_evaluation_they_are_of(tmp_path: Path) -> None:
    scores, states, network = iter([0.3, 0.8, 0.8]), [], toy_network()

    def evaluate(trained: Any) -> float:
        assert not trained.training
        states.append(state_of(trained))
        return next(scores)

    result = toy_fit(tmp_path, network, evaluate=evaluate)
    assert (result.best_miou, result.best_iter) == (0.8, 4)
    assert [entry["iteration"] for entry in result.history] == [2, 4, 6]
    assert state_of(network) == states[1] != states[2]


@pytest.mark.slow
def test_training_that_was_killed_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Killed by the system in iteration 5 of 6, after the snapshot of iteration 3; with dropout and batch norm."""
    straight = toy_network()
    expected = toy_fit(tmp_path / "straight", straight)
    killed = subprocess.run([sys.executable, "-m", "tests.training.toy", str(tmp_path / "killed")], timeout=300)
    assert killed.returncode == -signal.SIGKILL
    resumed, iterations = toy_network(seed=99), []
    result = toy_fit(tmp_path / "killed", resumed, progress=lambda at: iterations.append(at.iteration))
    assert iterations == [4, 5, 6]
    assert result == expected
    assert state_of(resumed) == state_of(straight)


@pytest.mark.parametrize("stopped", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "options", [OPTIONS, ADAM, FROZEN, DISTILLING, AVERAGED], ids=["sgd", "adam", "frozen", "distilling", "averaged"]
)
def test_training_stopped_anywhere_ends_the_same(tmp_path: Path, options: FitOptions, stopped: int) -> None:
    straight, resumed, teacher = toy_network(), toy_network(), toy_network(seed=3)
    options = dataclasses.replace(options, save_interval=1)
    expected = toy_fit(tmp_path / "straight", straight, options, teacher=teacher)
    with pytest.raises(Stop):
        toy_fit(tmp_path / "stopped", toy_network(), options, teacher=teacher, progress=_stop_after(stopped))
    assert toy_fit(tmp_path / "stopped", resumed, options, teacher=teacher) == expected
    assert state_of(resumed) == state_of(straight)


def test_the_start_is_kept_where_nothing_later_is_better(tmp_path: Path) -> None:
    options, network = dataclasses.replace(OPTIONS, evaluate_start=True), toy_network()
    before, scores = state_of(network), iter([0.8, 0.7, 0.8, 0.6])
    result = toy_fit(tmp_path / "worse", network, options, evaluate=lambda trained: next(scores))
    assert (result.best_miou, result.best_iter) == (0.8, 0) and state_of(network) == before
    assert [entry["iteration"] for entry in result.history] == [0, 2, 4, 6]
    better = toy_fit(tmp_path / "better", toy_network(), dataclasses.replace(options, iters=40, learning_rate=0.1))
    assert better.best_iter > 0 and better.best_miou > better.history[0]["miou"]


@pytest.mark.parametrize(
    ("iters", "interval", "evaluated"),
    [(8, 500, [2, 4, 6, 8]), (5, 4, [2, 4, 5]), (6, 3, [2, 4, 6]), (6, 1, [1, 2, 3, 4, 5, 6]), (1, 9, [1])],
)
def test_a_short_training_is_evaluated_four_times(
    tmp_path: Path, iters: int, interval: int, evaluated: list[int]
) -> None:
    options = dataclasses.replace(OPTIONS, iters=iters, eval_interval=interval)
    assert [entry["iteration"] for entry in toy_fit(tmp_path, toy_network(), options).history] == evaluated


@pytest.mark.parametrize("teacher", [1, 5])
def test_without_labels_a_network_learns_from_its_teacher_alone(tmp_path: Path, teacher: int) -> None:
    """The loss is 0 where the teacher has the same weights, whatever the labels say."""
    distillation = Distillation("logits", 1.0, 2.0)
    options = dataclasses.replace(FROZEN, labels=False, distillation=distillation, weight_decay=0.0)
    network, losses = toy_network(), []
    network.dropout.p = 0.0
    taught = {"teacher": toy_network(teacher), "progress": lambda at: losses.append(at.loss)}
    toy_fit(tmp_path, network, options, evaluate=None, **taught)
    assert max(losses) < 1e-6 if teacher == 1 else 0 < losses[-1] < losses[0]


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale(tmp_path: Path) -> None:
    frozen, usual = toy_network(), toy_network()
    before = {name: tensor.numpy().copy() for name, tensor in frozen.state_dict().items()}
    toy_fit(tmp_path / "frozen", frozen, FROZEN, evaluate=None)
    toy_fit(tmp_path / "usual", usual, evaluate=None)
    changed = {
        name
        for network in (frozen, usual)
        for name, tensor in network.state_dict().items()
        if name.startswith("stem.1") and (tensor.numpy() != before[name]).any()
        for name in [f"{name} {'frozen' if network is frozen else 'usual'}"]
    }
    trained = {f"stem.1.{name} {kind}" for name in ("weight", "bias") for kind in ("frozen", "usual")}
    assert changed == trained | {"stem.1._mean usual", "stem.1._variance usual"}


def test_frozen_batch_norm_is_the_network_of_evaluation(tmp_path: Path) -> None:
    """Without dropout, and at a rate of 0: the loss of a step is that of the network in evaluation mode."""
    network, losses = toy_network(), []
    network.dropout.p = 0.0
    network.stem[1]._mean.set_value(network.stem[1]._mean + 0.3)
    options = dataclasses.replace(FROZEN, iters=1, learning_rate=0.0)
    one_head = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0, 0.0]})
    toy_fit(tmp_path, network, options, losses=one_head, evaluate=None, progress=lambda at: losses.append(at.loss))
    batch = {key: paddle.to_tensor(array) for key, array in toy_batch(0).items()}
    expected = segmentation_loss(network(batch["img"]), batch["label"], Losses(one_head.types[:1], (1.0,)))
    assert losses == pytest.approx([float(expected)], rel=1e-5)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    network = toy_network()
    expected = toy_fit(tmp_path, network)
    steps: list[Progress] = []
    again = toy_network(seed=5)
    assert toy_fit(tmp_path, again, progress=steps.append) == expected
    assert steps == [] and state_of(again) == state_of(network)


@pytest.mark.parametrize(
    ("network", "options"),
    [({"width": 12}, OPTIONS), ({}, dataclasses.replace(OPTIONS, learning_rate=0.01)), ({}, ADAM), ({}, DISTILLING)],
    ids=["another network", "another rate", "another optimizer", "a teacher"],
)
def test_snapshot_of_another_training_is_ignored(
    tmp_path: Path, network: dict, options: FitOptions, caplog: pytest.LogCaptureFixture
) -> None:
    toy_fit(tmp_path, toy_network())
    steps: list[Progress] = []
    with caplog.at_level(logging.WARNING):
        toy_fit(tmp_path, toy_network(**network), options, progress=steps.append, teacher=toy_network(seed=3))
    assert len(steps) == 6 and str(tmp_path) in caplog.text


def test_dropout_depends_on_the_seed_and_the_iteration_alone(tmp_path: Path) -> None:
    networks = [toy_network() for _ in range(3)]
    for at, (network, seed) in enumerate(zip(networks, (7, 7, 8), strict=True)):
        toy_fit(tmp_path / str(at), network, dataclasses.replace(OPTIONS, seed=seed))
    assert state_of(networks[0]) == state_of(networks[1]) != state_of(networks[2])


def test_without_evaluation_the_last_weights_count(tmp_path: Path) -> None:
    evaluated, plain = toy_network(), toy_network()
    toy_fit(tmp_path / "evaluated", evaluated, evaluate=lambda trained: 1.0)
    result = toy_fit(tmp_path / "plain", plain, evaluate=None)
    assert (result.best_miou, result.best_iter) == (None, 6)
    assert [set(entry) for entry in result.history] == [{"iteration", "loss", "learning_rate"}] * 3
    assert state_of(plain) != state_of(evaluated)  # whose first evaluation, never surpassed, counts


def test_progress_reports_loss_rate_speed_and_what_is_left(tmp_path: Path) -> None:
    steps: list[Progress] = []
    toy_fit(tmp_path, toy_network(), progress=steps.append)
    assert [at.iteration for at in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].learning_rate == 0.05 and steps[-1].learning_rate < 0.02
    assert all(at.iters == 6 and at.loss > 0 and at.images_per_second > 0 for at in steps)
    assert steps[0].seconds_left > 0 == steps[-1].seconds_left


def test_loss_that_diverges_is_an_error_and_the_snapshot_before_it_stays(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, learning_rate=1e30, save_interval=1)
    steps: list[Progress] = []
    with pytest.raises(UserError, match=r"(nan|inf) at iteration \d: .*learning_rate .*1e\+30"):
        toy_fit(tmp_path, toy_network(), options, progress=steps.append, evaluate=None)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None and snapshot.record["state"]["iteration"] == steps[-1].iteration > 0


def test_weights_that_diverge_behind_a_finite_loss_are_an_error(tmp_path: Path) -> None:
    """A rectifier gives 0 for NaN: the loss stays finite, and only weights and statistics show what happened."""

    def batches(iteration: int) -> Any:
        for at, batch in enumerate(toy_batches(iteration), iteration):
            yield batch if at < 4 else {**batch, "img": batch["img"] * float("nan")}

    with pytest.raises(UserError, match=r"stem\.\S+ .*iteration 6: .*learning_rate"):
        toy_fit(tmp_path, toy_network(), batches_from=batches)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None and snapshot.record["state"]["iteration"] == 3


def test_pruned_network_is_trained_on_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    networks = [toy_network(width=16) for _ in range(3)]
    for network in networks:
        toy_fit(tmp_path / "dense" / str(id(network)), network)
        assert prune_by_ratio(network, (1, 3, 16, 16), ratio=0.5).flops_after > 0
    straight, stopped, resumed = networks
    expected = toy_fit(tmp_path / "straight", straight)
    with pytest.raises(Stop):
        toy_fit(tmp_path / "stopped", stopped, progress=_stop_after(4))
    assert toy_fit(tmp_path / "stopped", resumed) == expected
    assert straight.stem[0].weight.shape == [8, 3, 3, 3]
    assert state_of(resumed) == state_of(straight)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"amp": True}, "amp=true.*device=gpu"),
        ({"device": "gpu"}, "device=gpu.*device=cpu"),
    ],
)
def test_device_that_is_missing_is_an_error(tmp_path: Path, change: dict, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        toy_fit(tmp_path, toy_network(), dataclasses.replace(OPTIONS, **change))


def test_too_few_batches_are_a_defect_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gave 2 of 6 batches"):
        toy_fit(tmp_path, toy_network(), batches_from=lambda start: [next(toy_batches(at)) for at in (0, 1)])


class Recorded(paddle.nn.Layer):  # type: ignore[misc]
    """Answers with what another network answered, and holds no parameters."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.eval()
        batches = [toy_batch(iteration)["img"] for iteration in range(OPTIONS.iters)]
        self._answers = iter([network(paddle.to_tensor(batch))[0].numpy() for batch in batches])

    def forward(self, image: Any) -> list[Any]:
        return [paddle.to_tensor(next(self._answers))]


def _pruned_and_its_teacher() -> tuple[Any, Any]:
    student, teacher = toy_network(width=16), toy_network(width=16)
    prune_by_ratio(student, (1, 3, 16, 16), ratio=0.5)
    assert {p.name for p in student.parameters()} == {p.name for p in teacher.parameters()}
    return student, teacher


def test_teacher_of_the_same_names_shares_nothing_with_its_student(tmp_path: Path) -> None:
    """All networks number their layers from 0, and some name their parameters themselves."""
    student, teacher = _pruned_and_its_teacher()
    twin = _pruned_and_its_teacher()[0]
    before = state_of(teacher)
    result = toy_fit(tmp_path / "live", student, DISTILLING, teacher=teacher)
    assert state_of(teacher) == before and not teacher.training
    assert toy_fit(tmp_path / "recorded", twin, DISTILLING, teacher=Recorded(teacher)) == result
    assert state_of(twin) == state_of(student)


def test_student_comes_closer_to_its_teacher_than_by_the_labels_alone(tmp_path: Path) -> None:
    distances, teacher = [], toy_network(seed=5)
    toy_fit(tmp_path / "teacher", teacher)
    image = paddle.to_tensor(toy_batch(100)["img"])
    for options in (OPTIONS, DISTILLING):
        student = toy_network()
        toy_fit(tmp_path / str(len(distances)), student, options, teacher=teacher, evaluate=None)
        loss = distillation_loss(student(image)[0], teacher(image)[0], DISTILLING.distillation)
        distances.append(float(loss))
    assert distances[1] < distances[0]


def test_averages_of_the_weights_are_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    """As PaddleSeg's --use_ema: the mean is m = d m + (1 - d) w, with d = min(0.9, 1 - 1 / (i + 1)) after step i."""

    def arrays(network: Any) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    seen: list[dict[str, Any]] = []
    options = dataclasses.replace(OPTIONS, ema=0.9, iters=4, eval_interval=2)
    averaged, plain = toy_network(), toy_network()
    mean: dict[str, Any] = {}

    def follow(at: Progress) -> None:
        decay = min(0.9, 1 - 1 / (at.iteration + 1))
        for name, array in arrays(plain).items():
            mean[name] = decay * mean.get(name, array) + (1 - decay) * array

    for name, tensor in averaged.state_dict().items():
        tensor.set_value(plain.state_dict()[name].numpy())
    toy_fit(tmp_path / "plain", plain, dataclasses.replace(options, ema=None), progress=follow, evaluate=None)
    toy_fit(
        tmp_path / "averaged", averaged, options, evaluate=lambda network: seen.append(arrays(network)) or len(seen)
    )
    for name, array in seen[-1].items():
        np.testing.assert_allclose(array, mean[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(array, arrays(averaged)[name])


def test_training_ends_early_after_so_many_evaluations_without_a_better_one(tmp_path: Path) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.9])
    options = dataclasses.replace(OPTIONS, iters=40, eval_interval=5, early_stop=2)
    result = toy_fit(tmp_path, toy_network(), options, evaluate=lambda network: next(scores))
    assert (result.best_miou, result.best_iter) == (0.5, 5)
    assert [entry["iteration"] for entry in result.history] == [5, 10, 15]
