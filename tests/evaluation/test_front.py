"""Ratios go where the curve bends and where a bound is met; the point that is chosen holds what any could hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segslim.evaluation.front import Bound, Figure, beaten, bolder, choose, gains

SPAN = (0.1, 0.8)


def placed(loss, points, bound=None):
    """The ratios at which a search for `points` measures a curve of losses, the dense network's included."""

    def measured(ratio):
        return [(loss(ratio), *([] if bound is None else [bound - loss(ratio)]))]

    known = {ratio: measured(ratio) for ratio in (0.0, *SPAN)}
    while len(known) <= points:
        found = gains(known, SPAN)
        ratio = max(found, key=found.get)
        known[ratio] = measured(ratio)
    return sorted(known)


def worst(loss, ratios):
    """The largest error of the straight lines between measured ratios, up to where the network is useless."""
    fine = np.linspace(0, 0.8, 801)
    true = np.minimum([loss(x) for x in fine], 0.1)
    return np.abs(np.interp(fine, ratios, np.minimum([loss(x) for x in ratios], 0.1)) - true).max()


def test_placed_points_tell_more_than_as_many_even_ones():
    """Of curves that are flat, rise somewhere, and collapse: the largest error is less on average, by a third."""
    errors = []
    for knee in (0.3, 0.4, 0.5, 0.6, 0.7):
        for steepness in (8, 12, 20):
            for loss in (
                lambda r, k=knee, s=steepness: 0.3 / (1 + np.exp(-s * (r - k - 0.1))),
                lambda r, k=knee, s=steepness: max(0.0, r - k) ** 2 * s / 8 + 0.002 * r,
            ):
                errors.append([worst(loss, placed(loss, 8)), worst(loss, [0.0, *np.linspace(*SPAN, 8)])])
    placed_error, even_error = np.mean(errors, axis=0)
    assert placed_error < 0.67 * even_error


@given(knee=st.floats(0.15, 0.75), bound=st.floats(0.003, 0.05))
def test_where_a_bound_ceases_to_hold_is_found_within_eight_points(knee, bound):
    def loss(ratio):
        return max(0.0, ratio - knee) ** 2 * 3 + 0.002 * ratio

    ratios = placed(loss, 8, bound)
    holding = [ratio for ratio in ratios if loss(ratio) <= bound]
    missing = [ratio for ratio in ratios if loss(ratio) > bound]
    assert not missing or missing[0] - holding[-1] <= 0.1


def point(loss, latency=1.0, size=1.0):
    return {
        "miou_loss": Figure(loss, loss - 0.01, loss + 0.01),
        "latency_ratio": Figure.exact(latency),
        "size_mb": Figure.exact(size),
    }


UNITS = {"miou_loss": 1.0, "latency_ratio": 1.0, "size_mb": 1.0}
points = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.builds(point, st.floats(0, 0.1), st.floats(0.1, 1), st.floats(0.1, 1)),
    min_size=1,
)


@given(points, st.floats(0.001, 0.1), st.floats(0.1, 1), st.booleans())
def test_what_is_chosen_misses_no_hard_bound_that_another_point_holds(points, loss, latency, pessimistic):
    bounds = [Bound("miou_loss", loss, pessimistic=pessimistic), Bound("latency_ratio", latency, soft=True)]
    chosen = points[choose(points, bounds, "size_mb", UNITS)]
    holding = [figures for figures in points.values() if bounds[0].room(figures) >= 0]
    if holding:
        assert bounds[0].room(chosen) >= 0
        both = [figures["size_mb"].value for figures in holding if bounds[1].room(figures) >= 0]
        assert not both or (bounds[1].room(chosen) >= 0 and chosen["size_mb"].value == min(both))
    else:
        least = min(figures["miou_loss"].value for figures in points.values())
        assert chosen["miou_loss"].value == pytest.approx(least, abs=1e-9)


def test_a_loss_counts_by_its_worse_end_unless_asked_otherwise():
    points = {"careful": point(0.001, 0.9), "bold": point(0.008, 0.5)}
    chosen = [choose(points, [Bound("miou_loss", 0.012, pessimistic=p)], "latency_ratio", UNITS) for p in (True, False)]
    assert chosen == ["careful", "bold"]


def test_of_networks_that_are_equally_fast_the_better_is_chosen():
    points = {"fast": point(0.02, 0.500), "as fast": point(0.01, 0.505), "slow": point(0.0, 0.6)}
    assert choose(points, [], "latency_ratio", UNITS) == "as fast"


@given(points, st.floats(0.001, 0.1), st.floats(0, 0.1))
def test_a_bolder_point_is_cheaper_and_within_the_bound_by_what_training_won_back(points, loss, won):
    bounds = [Bound("miou_loss", loss, pessimistic=False), Bound("size_mb", 0.5)]
    than = next(iter(points))
    found = bolder(points, bounds, "latency_ratio", than, won)
    likely = {
        name
        for name, figures in points.items()
        if figures["latency_ratio"].value < points[than]["latency_ratio"].value
        and figures["size_mb"].value <= 0.5
        and loss < figures["miou_loss"].value <= loss + won
    }
    assert found in likely if likely else found is None


@given(points)
def test_a_point_is_beaten_only_by_one_that_is_not(points):
    figures = ("miou_loss", "latency_ratio", "size_mb")
    lost = beaten(points, figures)
    for name in lost:
        assert any(
            all(points[other][key].value <= points[name][key].value for key in figures)
            for other in points.keys() - lost
        )
    assert len(lost) < len(points)
