import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.channels import prune
from segslim.errors import UserError
from segslim.training.distillation import DISTILLATIONS, Distillation, distillation_loss
from segslim.training.files import read_snapshot
from tests.training.toy import OPTIONS, paddle, state_of, toy_batch, toy_fit, toy_network

DISTILLING = dataclasses.replace(OPTIONS, distillation=Distillation("channel_wise", weight=3.0, temperature=4.0))


def _logits(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape or (2, 3, 4, 5)).astype(np.float32)


def _divergence(teacher: np.ndarray, student: np.ndarray, axis: tuple[int, ...], temperature: float) -> np.ndarray:
    """KL(p || q) by its definition, of the softmax over `axis`, in float64."""
    p, q = (np.exp(maps.astype(np.float64) / temperature) for maps in (teacher, student))
    p, q = p / p.sum(axis, keepdims=True), q / q.sum(axis, keepdims=True)
    return (p * np.log(p / q)).sum(axis)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("kind", "axis"), [("logits", (1,)), ("channel_wise", (2, 3))])
def test_loss_is_the_mean_divergence_of_the_softened_distributions(
    kind: str, axis: tuple[int, ...], temperature: float
) -> None:
    student, teacher = _logits(0), _logits(1)
    expected = 0.7 * temperature**2 * _divergence(teacher, student, axis, temperature).mean()
    options = Distillation(kind, weight=0.7, temperature=temperature)
    value = distillation_loss(paddle.to_tensor(student), paddle.to_tensor(teacher), options)
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_student_that_equals_its_teacher_has_nothing_to_learn_from_it(kind: str) -> None:
    student, teacher = (paddle.to_tensor(100 * _logits(0), stop_gradient=False) for _ in range(2))
    value = distillation_loss(student, teacher, Distillation(kind, 1.0, 2.0))
    value.backward()
    assert float(value) == 0
    np.testing.assert_allclose(student.grad.numpy(), 0, atol=1e-6)


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_gradient_flows_to_the_student_only(kind: str) -> None:
    student, teacher = (paddle.to_tensor(_logits(seed), stop_gradient=False) for seed in (0, 1))
    distillation_loss(student, teacher, Distillation(kind, 1.0, 2.0)).backward()
    assert np.abs(student.grad.numpy()).max() > 0 and teacher.grad is None


def test_logits_of_another_shape_are_told() -> None:
    with pytest.raises(UserError, match=r"logits of 2 x 3 x 4 x 5, its teacher 2 x 4 x 4 x 5: give retrain\.distill"):
        distillation_loss(
            paddle.to_tensor(_logits(0)), paddle.to_tensor(_logits(0, 2, 4, 4, 5)), DISTILLING.distillation
        )


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
    prune(student, (1, 3, 16, 16), ratio=0.5)
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


@pytest.mark.slow
def test_distillation_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    straight, resumed, iterations = toy_network(), toy_network(seed=99), []
    expected = toy_fit(tmp_path / "straight", straight, DISTILLING, teacher=toy_network(seed=3))
    killed = subprocess.run([sys.executable, "-m", "tests.training.test_distillation", str(tmp_path / "killed")])
    assert killed.returncode == -signal.SIGKILL
    result = toy_fit(
        tmp_path / "killed",
        resumed,
        DISTILLING,
        teacher=toy_network(seed=3),
        progress=lambda at: iterations.append(at.iteration),
    )
    assert iterations == [4, 5, 6]
    assert result == expected and state_of(resumed) == state_of(straight)


def test_snapshot_of_another_distillation_is_left_aside(tmp_path: Path) -> None:
    teacher = toy_network(seed=3)
    toy_fit(tmp_path, toy_network(), DISTILLING, teacher=teacher)
    other = dataclasses.replace(OPTIONS, distillation=Distillation("logits", 3.0, 4.0))
    steps: list[Any] = []
    toy_fit(tmp_path, toy_network(), other, teacher=teacher, progress=steps.append)
    assert len(steps) == OPTIONS.iters
    assert read_snapshot(tmp_path).record["of"]["distillation"] == dataclasses.asdict(other.distillation)


if __name__ == "__main__":  # scratch folder: distils, and is killed in iteration 5
    from tests.training.toy import die

    toy_fit(Path(sys.argv[1]), toy_network(), DISTILLING, teacher=toy_network(seed=3), progress=die)
