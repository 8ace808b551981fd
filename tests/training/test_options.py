import dataclasses

import pytest

from segslim.training.options import FitOptions, learning_rate

OPTIONS = FitOptions(iters=100, learning_rate=0.1, power=0.9)


def test_rate_starts_at_the_given_one_and_decays_to_nearly_nothing() -> None:
    assert learning_rate(0, OPTIONS) == 0.1
    assert learning_rate(50, OPTIONS) == pytest.approx(0.1 * 0.5**0.9)
    assert 0 < learning_rate(99, OPTIONS) < 0.01 * 0.1 * 2


def test_warmup_climbs_linearly_to_the_given_rate_and_decay_starts_there() -> None:
    options = dataclasses.replace(OPTIONS, warmup_iters=4)
    assert [learning_rate(at, options) for at in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert learning_rate(5, options) < 0.1


def test_training_shorter_than_its_warmup_has_a_rate_everywhere() -> None:
    options = FitOptions(iters=3, learning_rate=0.1, warmup_iters=10)
    assert [learning_rate(at, options) for at in range(3)] == pytest.approx([0.01, 0.02, 0.03])
