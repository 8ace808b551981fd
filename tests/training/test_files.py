import pytest

from segslim.training.curve import CurveWriter, read_curve
from tests.training.toy import toy_fit, toy_network


def _numbers(loss, **more):
    return {"loss": loss, "learning_rate": 0.1, "images_per_second": 20.0, **more}


def _write(file, points):
    told = []
    writer = CurveWriter(file, lambda iteration, numbers: told.append((iteration, dict(numbers))))
    for point in points:
        writer.add(*point)
    writer.close()
    return told


def test_a_curve_comes_back_as_it_was_told(tmp_path):
    points = [(1, _numbers(0.5)), (2, _numbers(0.25, miou=0.75))]
    assert _write(tmp_path / "curve.csv", points) == points
    assert read_curve(tmp_path / "curve.csv") == points


def test_it_can_be_followed_while_it_is_written(tmp_path):
    writer = CurveWriter(tmp_path / "curve.csv", lambda iteration, numbers: None)
    writer.add(1, _numbers(0.5))
    assert read_curve(tmp_path / "curve.csv") == [(1, _numbers(0.5))]
    writer.close()


def test_a_training_that_goes_on_tells_the_points_before_it_again_and_forgets_those_after(tmp_path):
    _write(tmp_path / "curve.csv", [(i, _numbers(float(i))) for i in range(1, 8)])
    told = _write(tmp_path / "curve.csv", [(5, _numbers(50.0)), (6, _numbers(60.0))])
    assert [(iteration, numbers["loss"]) for iteration, numbers in told] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
        (5, 50.0),
        (6, 60.0),
    ]
    assert read_curve(tmp_path / "curve.csv") == told


def test_a_line_torn_by_a_kill_is_no_point(tmp_path):
    _write(tmp_path / "curve.csv", [(99, _numbers(1.0)), (100, _numbers(2.0))])
    whole = (tmp_path / "curve.csv").read_text()
    (tmp_path / "curve.csv").write_text(whole + "101,0.5")
    assert [iteration for iteration, _ in read_curve(tmp_path / "curve.csv")] == [99, 100]


def test_where_there_is_no_curve_there_is_nothing_to_tell(tmp_path):
    assert read_curve(tmp_path / "curve.csv") == []


def _train(scratch, stop_at=None):
    """A training of 6 iterations, saved every 3, evaluated every 2."""
    scratch.mkdir(exist_ok=True)
    told = []
    curve = CurveWriter(scratch / "curve.csv", lambda iteration, numbers: told.append((iteration, numbers["loss"])))

    def progress(at):
        curve.add(at.iteration, {"loss": at.loss} if at.miou is None else {"loss": at.loss, "miou": at.miou})
        if at.iteration == stop_at:
            raise KeyboardInterrupt

    toy_fit(scratch, toy_network(), progress=progress)
    return told


def test_the_curve_of_a_stopped_training_ends_as_that_of_an_undisturbed_one(tmp_path):
    undisturbed = _train(tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "stopped", stop_at=5)
    goes_on = _train(tmp_path / "stopped")
    assert [iteration for iteration, _ in goes_on] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in goes_on] == pytest.approx([loss for _, loss in undisturbed], rel=1e-5)
    curve = read_curve(tmp_path / "stopped" / "curve.csv")
    assert [iteration for iteration, numbers in curve if "miou" in numbers] == [2, 4, 6]
