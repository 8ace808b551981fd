import logging
from pathlib import Path

import numpy as np
import pytest

from segslim.training.files import Snapshot, read_snapshot, write_snapshot

SNAPSHOT = Snapshot(
    weights={"head/a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3)},
    velocity={"head/a.weight": np.full((2, 3), 0.1, np.float64)},
    best={},
    record={"course": {"iteration": 3, "loss_sum": 0.1 + 0.2, "best_miou": None}},
)


def _file(folder: Path) -> Path:
    (file,) = (path for path in folder.iterdir() if path.suffix == ".safetensors")
    return file


def test_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "new", SNAPSHOT)
    found = read_snapshot(tmp_path / "new")
    assert found is not None and found.record == SNAPSHOT.record and found.best == {}
    for part in ("weights", "velocity"):
        expected, read = getattr(SNAPSHOT, part), getattr(found, part)
        assert read.keys() == expected.keys()
        for name, array in expected.items():
            assert read[name].dtype == array.dtype and read[name].shape == array.shape
            np.testing.assert_array_equal(read[name], array)


def test_empty_or_missing_folder_has_no_snapshot(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    assert read_snapshot(tmp_path / "missing") is None


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_torn_snapshot_is_left_aside_with_a_warning(
    tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_snapshot(tmp_path, SNAPSHOT)
    file = _file(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(tmp_path) is None
    assert "training starts anew" in caplog.text


def test_write_that_fails_leaves_the_snapshot_before_it(tmp_path: Path) -> None:
    write_snapshot(tmp_path, SNAPSHOT)
    before = _file(tmp_path).read_bytes()
    unwritable = Snapshot({"a": np.array(["text"])}, {}, {}, {})
    with pytest.raises(Exception, match=r".*"):
        write_snapshot(tmp_path, unwritable)
    assert _file(tmp_path).read_bytes() == before
