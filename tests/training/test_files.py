"""The curve and the snapshot: read as they were written, whatever was killed or torn in between."""

import logging
from pathlib import Path

import numpy as np
import pytest

from segslim.training.files import CURVE_FILE, CurveWriter, Snapshot, read_curve, read_snapshot, write_snapshot
from tests.training.toy import toy_fit, toy_network

SNAPSHOT = Snapshot(
    weights={"head/a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3)},
    optimizer={"velocity/head/a.weight": np.full((2, 3), 0.1, np.float64)},
    best={},
    record={"state": {"iteration": 3, "loss_sum": 0.1 + 0.2, "best_miou": None}},
)


def _values(loss, **more):
    return {"loss": loss, "learning_rate": 0.1, "images_per_second": 20.0, **more}


def _write(file, points):
    received = []
    writer = CurveWriter(file, lambda iteration, values: received.append((iteration, dict(values))))
    for point in points:
        writer.add(*point)
        assert read_curve(file)[-1] == point  # it can be followed while it is written
    writer.close()
    return received


def test_a_curve_is_read_as_it_was_written(tmp_path):
    points = [(1, _values(0.5)), (2, _values(0.25, miou=0.75))]
    assert read_curve(tmp_path / CURVE_FILE) == []
    assert _write(tmp_path / CURVE_FILE, points) == points
    assert read_curve(tmp_path / CURVE_FILE) == points


def test_a_resumed_curve_repeats_the_points_before_and_drops_those_after(tmp_path):
    _write(tmp_path / CURVE_FILE, [(i, _values(float(i))) for i in range(1, 8)])
    received = _write(tmp_path / CURVE_FILE, [(5, _values(50.0)), (6, _values(60.0))])
    assert [(iteration, values["loss"]) for iteration, values in received] == [
        *((i, i) for i in range(1, 5)),
        (5, 50.0),
        (6, 60.0),
    ]
    assert read_curve(tmp_path / CURVE_FILE) == received


def test_a_line_torn_by_a_kill_is_no_point(tmp_path):
    _write(tmp_path / CURVE_FILE, [(99, _values(1.0)), (100, _values(2.0))])
    with (tmp_path / CURVE_FILE).open("a") as file:
        file.write("101,0.5")
    assert [iteration for iteration, _ in read_curve(tmp_path / CURVE_FILE)] == [99, 100]


def _train(scratch, stop_at=None):
    """A training of 6 iterations, saved every 3, evaluated every 2."""
    scratch.mkdir(exist_ok=True)
    received = []
    curve = CurveWriter(scratch / CURVE_FILE, lambda iteration, values: received.append((iteration, values["loss"])))

    def progress(at):
        curve.add(at.iteration, {"loss": at.loss} if at.miou is None else {"loss": at.loss, "miou": at.miou})
        if at.iteration == stop_at:
            raise KeyboardInterrupt

    toy_fit(scratch, toy_network(), progress=progress)
    return received


def test_the_curve_of_a_stopped_training_ends_as_that_of_an_undisturbed_one(tmp_path):
    undisturbed = _train(tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "stopped", stop_at=5)
    resumed = _train(tmp_path / "stopped")
    assert [iteration for iteration, _ in resumed] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in resumed] == pytest.approx([loss for _, loss in undisturbed], rel=1e-5)
    curve = read_curve(tmp_path / "stopped" / CURVE_FILE)
    assert [iteration for iteration, values in curve if "miou" in values] == [2, 4, 6]


def _file(folder: Path) -> Path:
    (file,) = (path for path in folder.iterdir() if path.suffix == ".safetensors")
    return file


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path / "missing") is None and read_snapshot(tmp_path) is None
    write_snapshot(tmp_path / "new", SNAPSHOT)
    found = read_snapshot(tmp_path / "new")
    assert found is not None and found.record == SNAPSHOT.record and found.best == {}
    for part in ("weights", "optimizer"):
        expected, read = getattr(SNAPSHOT, part), getattr(found, part)
        assert read.keys() == expected.keys()
        for name, array in expected.items():
            assert read[name].dtype == array.dtype and read[name].shape == array.shape
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_a_torn_snapshot_is_ignored_with_a_warning(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    write_snapshot(tmp_path, SNAPSHOT)
    file = _file(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(tmp_path) is None
    assert str(file) in caplog.text


def test_a_write_that_fails_leaves_the_snapshot_before_it(tmp_path: Path) -> None:
    write_snapshot(tmp_path, SNAPSHOT)
    before = _file(tmp_path).read_bytes()
    with pytest.raises(Exception, match=r".*"):
        write_snapshot(tmp_path, Snapshot({"a": np.array(["text"])}, {}, {}, {}))
    assert _file(tmp_path).read_bytes() == before and len(list(tmp_path.iterdir())) == 1
