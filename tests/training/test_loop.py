import dataclasses
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segslim.channels import prune
from segslim.errors import UserError
from segslim.training.loop import FitOptions, Progress
from segslim.training.files import read_snapshot
from tests.training.toy import OPTIONS, state_of, toy_batches, toy_fit, toy_network


class Stop(Exception):
    """What a test ends a training with."""


def _stop_after(iteration: int) -> Callable[[Progress], None]:
    def progress(at: Progress) -> None:
        if at.iteration == iteration:
            raise Stop

    return progress


def test_training_learns(tmp_path: Path) -> None:
    network = toy_network()
    result = toy_fit(tmp_path, network, FitOptions(iters=60, learning_rate=0.1, eval_interval=20))
    assert result.best_miou is not None and result.best_miou > 0.95
    losses = [entry["loss"] for entry in result.history]
    assert losses == sorted(losses, reverse=True) and len(losses) == 3
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
def test_training_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
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
def test_training_stopped_anywhere_ends_the_same(tmp_path: Path, stopped: int) -> None:
    straight, resumed = toy_network(), toy_network()
    options = dataclasses.replace(OPTIONS, save_interval=1)
    expected = toy_fit(tmp_path / "straight", straight)
    with pytest.raises(Stop):
        toy_fit(tmp_path / "stopped", toy_network(), options, progress=_stop_after(stopped))
    assert toy_fit(tmp_path / "stopped", resumed, options) == expected
    assert state_of(resumed) == state_of(straight)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    network = toy_network()
    expected = toy_fit(tmp_path, network)
    steps: list[Progress] = []
    again = toy_network(seed=5)
    assert toy_fit(tmp_path, again, progress=steps.append) == expected
    assert steps == [] and state_of(again) == state_of(network)


def test_torn_snapshot_is_left_aside_and_training_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight, anew = toy_network(), toy_network()
    expected = toy_fit(tmp_path, straight)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert toy_fit(tmp_path, anew) == expected
    assert "training starts anew" in caplog.text and state_of(anew) == state_of(straight)


@pytest.mark.parametrize(
    ("network", "options"),
    [({"width": 12}, OPTIONS), ({}, dataclasses.replace(OPTIONS, learning_rate=0.01))],
    ids=["another network", "other options"],
)
def test_snapshot_of_another_training_is_left_aside(
    tmp_path: Path, network: dict, options: FitOptions, caplog: pytest.LogCaptureFixture
) -> None:
    toy_fit(tmp_path, toy_network())
    steps: list[Progress] = []
    with caplog.at_level(logging.WARNING):
        toy_fit(tmp_path, toy_network(**network), options, progress=steps.append)
    assert len(steps) == 6 and "another training" in caplog.text


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


def test_progress_tells_loss_rate_speed_and_what_is_left(tmp_path: Path) -> None:
    steps: list[Progress] = []
    toy_fit(tmp_path, toy_network(), progress=steps.append)
    assert [at.iteration for at in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].learning_rate == 0.05 and steps[-1].learning_rate < 0.02
    assert all(at.iters == 6 and at.loss > 0 and at.images_per_second > 0 for at in steps)
    assert steps[0].seconds_left > 0 == steps[-1].seconds_left


def test_loss_that_diverges_is_told_and_the_snapshot_before_it_stays(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, learning_rate=1e30, save_interval=1)
    steps: list[Progress] = []
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at iteration \d: .*learning_rate \(it is 1e\+30\)"):
        toy_fit(tmp_path, toy_network(), options, progress=steps.append, evaluate=None)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None and snapshot.record["course"]["iteration"] == steps[-1].iteration > 0


def test_weights_that_diverge_behind_a_finite_loss_are_told(tmp_path: Path) -> None:
    """A rectifier gives 0 for NaN: the loss stays finite, and only weights and statistics show what happened."""

    def batches(iteration: int) -> Any:
        for at, batch in enumerate(toy_batches(iteration), iteration):
            yield batch if at < 4 else {**batch, "img": batch["img"] * float("nan")}

    with pytest.raises(UserError, match=r"stem\.\S+ holds no numbers at iteration 6: .*lower learning_rate"):
        toy_fit(tmp_path, toy_network(), batches_from=batches)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None and snapshot.record["course"]["iteration"] == 3


def test_pruned_network_is_trained_on_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    networks = [toy_network(width=16) for _ in range(3)]
    for network in networks:
        toy_fit(tmp_path / "dense" / str(id(network)), network)
        assert prune(network, (1, 3, 16, 16), ratio=0.5).flops_after > 0
    straight, stopped, resumed = networks
    expected = toy_fit(tmp_path / "straight", straight)
    with pytest.raises(Stop):
        toy_fit(tmp_path / "stopped", stopped, progress=_stop_after(4))
    assert toy_fit(tmp_path / "stopped", resumed) == expected
    assert straight.stem[0].weight.shape == [8, 3, 3, 3]
    assert state_of(resumed) == state_of(straight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amp": True}, "mixed precision needs device=gpu"),
        ({"device": "gpu"}, "device=gpu: this Paddle is made for the CPU"),
    ],
)
def test_device_that_is_missing_is_told(tmp_path: Path, change: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        toy_fit(tmp_path, toy_network(), dataclasses.replace(OPTIONS, **change))


def test_too_few_batches_are_a_defect_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gave 2 of 6 batches"):
        toy_fit(tmp_path, toy_network(), batches_from=lambda start: [next(toy_batches(at)) for at in (0, 1)])
