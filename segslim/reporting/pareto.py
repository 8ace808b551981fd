"""The Pareto front: what nothing else beats in both of two figures."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, value) that no other dominates, by rising cost.

    A point is dominated by one that costs no more and is worth no less, unless they are equal.
    """
    found: list[int] = []
    best = None
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if best is None or points[at][1] > points[best][1] or points[at] == points[best]:
            found.append(at)
            best = at
    return found
