"""The front of a network: where its next ratio tells most, which points hold the bounds, and which is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: Losses of mIoU beyond this count as this: such a network is of no use, and where it collapses tells nothing.
USELESS = 0.1
#: Latencies closer than this share are one.
SAME = 0.02
#: Ratios closer than this are one.
CLOSE = 0.02


@dataclass(frozen=True)
class Figure:
    """A measured cost of a network, and what it lies within with 95 % confidence. Less is better."""

    value: float
    low: float
    high: float

    @staticmethod
    def exact(value: float) -> "Figure":
        return Figure(value, value, value)


Figures = Mapping[str, Figure]


@dataclass(frozen=True)
class Bound:
    """The most that the figure `name` may be. A soft one is missed rather than another."""

    name: str
    most: float
    soft: bool = False
    pessimistic: bool = True

    def room(self, figures: Figures) -> float:
        """How far the figure is below the bound; negative where it is missed."""
        figure = figures[self.name]
        return self.most - (figure.high if self.pessimistic else figure.value)


def choose(points: Mapping[str, Figures], bounds: Sequence[Bound], goal: str, units: Mapping[str, float]) -> str:
    """The name of the point that holds all bounds and has the least of the figure `goal`; where none does, of the one
    that misses them least.

    Args:
        points: at least one.
        bounds: hard ones come first: a soft one decides between points that miss the hard ones equally.
        goal: a figure. Latencies within SAME of the least are one: of those, the least loss of mIoU is best.
        units: of each bounded figure, what a miss is measured in: the dense network's own, so that misses are shares.
    """

    def missed(name: str, soft: bool) -> float:
        rooms = {bound: bound.room(points[name]) for bound in bounds if bound.soft == soft}
        return sum(max(-room, 0.0) / units[bound.name] for bound, room in rooms.items())

    misses = {name: (missed(name, soft=False), missed(name, soft=True)) for name in points}
    nearest = [name for name in points if misses[name] == min(misses.values())]
    best = min(points[name][goal].value for name in nearest)
    if goal.startswith("latency"):
        nearest = [name for name in nearest if points[name][goal].value <= best * (1 + SAME)]
        goal = "miou_loss"
    return min(nearest, key=lambda name: points[name][goal].value)


def bolder(points: Mapping[str, Figures], bounds: Sequence[Bound], goal: str, than: str, won: float) -> str | None:
    """The point to train after `than`: of those with less of the figure `goal` that miss nothing but the bound on the
    loss of mIoU, and that by no more than training is expected to win back, the one that misses it least. None where
    there is none.

    Args:
        points: as they are without training, `than` among them.
        bounds: of which soft ones are not asked.
        goal: a figure.
        than: the name of the point that was trained.
        won: what that took off its loss.
    """
    room = {
        name: bound.room(figures)
        for bound in bounds
        for name, figures in points.items()
        if bound.name == "miou_loss" and figures[goal].value < points[than][goal].value
        if all(other.room(figures) >= 0 for other in bounds if other.name != "miou_loss" and not other.soft)
    }
    return max((name for name in room if -won <= room[name] < 0), key=lambda name: room[name], default=None)


def beaten(points: Mapping[str, Figures], by: Sequence[str]) -> set[str]:
    """Names of the points that another is no worse than in every figure of `by`, and better than in one."""
    values = {name: [figures[key].value for key in by] for name, figures in points.items()}
    return {
        name
        for name, own in values.items()
        if any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in values.values())
    }


def gains(known: Mapping[float, Sequence[tuple[float, ...]]], span: tuple[float, float]) -> dict[float, float]:
    """What each ratio that could be measured next would tell: {ratio: gain}, none closer than CLOSE to a known one.

    One lies in the middle of each gap between known ratios. Since a loss rises with the ratio, it is known within a
    gap up to a rectangle, from one end's loss to the other's: the gain is its area, so that ratios gather where the
    curve bends upwards; or the gap's width, where a bound ceases to hold within it.

    Args:
        known: by ratio, for each network that was made at it (float, int8): the loss of mIoU, then the room that each
            bound leaves. At least two ratios.
        span: the least and the most ratio that may be measured.
    """
    ratios = sorted(known)
    found: dict[float, float] = {}
    for low, high in pairwise(ratios):
        place = min(max(round((low + high) / 2, 2), span[0]), span[1])
        if min(place - low, high - place) < CLOSE - 1e-9:
            continue
        before, after = (np.asarray(known[ratio], np.float64) for ratio in (low, high))
        losses = [np.clip(end[:, 0], 0, USELESS) / USELESS for end in (before, after)]
        gain = float(np.abs(losses[1] - losses[0]).max())
        if np.any((before[:, 1:] < 0) != (after[:, 1:] < 0)):
            gain = 1.0
        found[place] = gain * (high - low)
    return found
