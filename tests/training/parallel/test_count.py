import os

import pytest

from segslim.training.parallel.count import WORTH_IT, count_processes


@pytest.mark.parametrize(
    ("cores", "batch_size", "count"), [(1, 8, 1), (2, 8, 2), (2, 5, 1), (6, 8, 4), (6, 9, 3), (64, 8, 8)]
)
def test_as_many_as_there_are_cores_and_the_batch_divides_by(
    monkeypatch: pytest.MonkeyPatch, cores: int, batch_size: int, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert count_processes("auto", "cpu", batch_size, WORTH_IT) == count
    assert count_processes("auto", "cpu", batch_size, WORTH_IT - 1) == 1


def test_number_that_is_asked_for_is_taken() -> None:
    assert count_processes(3, "cpu", 6, 1) == 3
