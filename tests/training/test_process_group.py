"""What processes exchange, and a training of the toy network by two: with batch norm, dropout, two heads, ignored
pixels, and one image each.
"""

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.training.process_group import ProcessGroup, connect
from tests.training.toy_worker import DISTILLING, together, weights, work


def test_every_process_gets_the_arrays_of_all_in_their_order() -> None:
    server, received = socket.create_server(("127.0.0.1", 0)), {}
    address = server.getsockname()

    def exchange(rank: int) -> None:
        group = ProcessGroup(rank, 3, connect(server if rank == 0 else address, rank, 3))
        arrays = (np.full((50, 1000), 10 * rank + turn, np.float32) for turn in range(3))
        received[rank] = [group.all_gather(array) for array in arrays]

    threads = [threading.Thread(target=exchange, args=[rank]) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for arrays in received.values():
        assert [array[:, 7, 7].tolist() for array in arrays] == [[turn, 10 + turn, 20 + turn] for turn in range(3)]
        assert all(array.shape == (3, 50, 1000) for array in arrays)
    assert received.keys() == {0, 1, 2}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the result of a training of 6 iterations by two processes."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, together(folder)


def _alone(folder: Path, **job: Any) -> tuple[Path, Any]:
    return folder, work({"folder": str(folder), **job})


def _assert_equal_but_for_sums(one: tuple[Path, Any], other: tuple[Path, Any]) -> None:
    arrays, expected = weights(one[0]), weights(other[0])
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=2e-6, err_msg=name)
    for entry, twin in zip(one[1]["history"], other[1]["history"], strict=True):
        assert entry == pytest.approx(twin, rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one(straight: tuple[Path, Any], tmp_path: Path) -> None:
    alone = _alone(tmp_path)
    _assert_equal_but_for_sums(straight, alone)
    assert max(np.abs(array).max() for array in weights(tmp_path).values()) > 0.1


@pytest.mark.slow
def test_losses_of_the_hardest_pixels_and_of_overlaps_and_the_teachers_are_those_of_the_whole_batch(
    tmp_path: Path,
) -> None:
    job = {"losses": "others", "options": DISTILLING}
    folders = tmp_path / "together", tmp_path / "alone"
    for folder in folders:
        folder.mkdir()
    _assert_equal_but_for_sums((folders[0], together(folders[0], **job)), _alone(folders[1], **job))


@pytest.mark.slow
def test_training_of_which_a_process_was_killed_resumes_to_the_same_bits(
    straight: tuple[Path, Any], tmp_path: Path
) -> None:
    """Killed in iteration 5 of 6, after the snapshot of iteration 3."""
    with pytest.raises(UserError, match=r"process 1 of 2 was killed by SIGKILL"):
        together(tmp_path, end=[1, 5])
    messages: list[Any] = []
    result = together(tmp_path, on_message=lambda kind, content: messages.append((kind, content)))
    assert [content for kind, content in messages if kind == "progress"] == [4, 4, 5, 5, 6, 6]
    assert result == straight[1]
    expected = weights(straight[0])
    assert all(array.tobytes() == expected[name].tobytes() for name, array in weights(tmp_path).items())
