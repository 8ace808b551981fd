from hypothesis import given
from hypothesis import strategies as st

from segslim.reporting.metrics import pareto_front

points = st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), max_size=24)


def _dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(points)
def test_the_front_is_what_nothing_dominates(found):
    expected = {at for at, b in enumerate(found) if not any(_dominates(a, b) for a in found)}
    front = pareto_front(found)
    assert set(front) == expected
    assert [found[at] for at in front] == sorted(found[at] for at in front)
