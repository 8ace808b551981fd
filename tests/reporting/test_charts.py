from hypothesis import given
from hypothesis import strategies as st

from segslim.reporting.charts import HEIGHT, WIDTH, Curve, Dot, chart, nice_ticks, strip_chart, tick_text

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(numbers, numbers)
def test_ticks_enclose_the_data_and_are_few_and_apart(one, other):
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    slack = 1e-8 * max(1, high - low, abs(low), abs(high))  # far less than can be seen
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 6
    assert len({tick_text(tick, ticks) for tick in ticks}) == len(ticks)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_everything_is_drawn_inside(points):
    drawn = chart("", "", "", [Curve(points, "comp")], [Dot(p, "comp", label=f"job {n}") for n, p in enumerate(points)])
    assert all(0 <= mark.x <= WIDTH and 0 <= mark.y <= HEIGHT for mark in drawn.marks)


def test_labels_do_not_touch_and_are_left_out_where_there_is_no_room():
    close = chart("", "", "", dots=[Dot((1.0, 1.0), "comp", label="a label") for _ in range(30)])
    assert sum(bool(mark.label) for mark in close.marks) < 30
    apart = chart("", "", "", dots=[Dot((x, x), "comp", label="a") for x in (1.0, 2.0, 3.0)])
    assert all(mark.label for mark in apart.marks)


def test_a_front_is_a_staircase():
    drawn = chart("", "", "", [Curve([(0, 0), (1, 1)], "front", steps=True)])
    assert "H" in drawn.paths[0].data and "L" not in drawn.paths[0].data


def test_every_sample_is_a_dot_in_the_row_of_its_network():
    drawn = strip_chart("", "", [("baseline", "base", [3.0, 1.0, 2.0], 1.0), ("compressed", "comp", [1.5], 1.5)])
    assert len(drawn.marks) == 4 and [tick.text for tick in drawn.y_ticks] == ["baseline", "compressed"]
