"""Charts as plain values: where every tick, line, dot and label goes, in the units of an SVG. The template draws them.

They are small (360 x 250), so that their text has its own size on a telephone and three stand side by side on a desk.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 26.0, 38.0
LETTER, LINE = 6.3, 13.0  # the size of a label's letters, estimated

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Data to draw as a line. `kind` is the CSS class of its colour, `title` what a mouse over it shows."""

    points: Sequence[Point]
    kind: str
    title: str = ""
    steps: bool = False  # drawn as a staircase: what is reached holds until the next point


@dataclass(frozen=True)
class Dot:
    """Data to draw as a dot, with a label where there is room for one."""

    at: Point
    kind: str
    title: str = ""
    label: str = ""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Path:
    d: str
    kind: str
    title: str


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    kind: str
    title: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Chart:
    """All positions in the SVG's units; (left, top) to (right, bottom) is the field that the data is drawn in."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    paths: tuple[Path, ...]
    marks: tuple[Mark, ...]
    title: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers, 1, 2 or 5 times a power of ten apart, that enclose low..high."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for step in (m * power for m in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [round(n * step, 12) for n in range(first, last + 1)]


def written(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as tell it from its neighbours."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}"


def chart(
    title: str,
    x_label: str,
    y_label: str,
    curves: Sequence[Curve] = (),
    dots: Sequence[Dot] = (),
    *,
    from_zero: bool = False,
    write_x: Callable[[float, Sequence[float]], str] = written,
) -> Chart:
    """Lays out at least one point. `from_zero`: the horizontal axis begins at 0."""
    everything = [point for curve in curves for point in curve.points] + [dot.at for dot in dots]
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_ticks, y_ticks = nice_ticks(0.0 if from_zero else min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    place = _placing(x_ticks, y_ticks)
    return Chart(
        x_label,
        y_label,
        tuple(Tick(place((x, y_ticks[0]))[0], write_x(x, x_ticks)) for x in x_ticks),
        tuple(Tick(place((x_ticks[0], y))[1], written(y, y_ticks)) for y in y_ticks),
        tuple(Path(_d([place(p) for p in curve.points], curve.steps), curve.kind, curve.title) for curve in curves),
        _marks(dots, [place(dot.at) for dot in dots]),
        title,
    )


def strips(title: str, x_label: str, lanes: Sequence[tuple[str, str, Sequence[float]]], height: float = 150.0) -> Chart:
    """Every sample of each lane (name, kind, samples) as a dot on a line of its own, the median as a bar."""
    samples = [sample for _, _, values in lanes for sample in values]
    x_ticks = nice_ticks(min(samples), max(samples))
    place = _placing(x_ticks, [0.0, 1.0], height, left=82.0)
    marks, ticks, paths = [], [], []
    for number, (name, kind, values) in enumerate(lanes):
        middle = place((0, 1 - (number + 0.5) / len(lanes)))[1]
        ticks.append(Tick(middle, name))
        for order, value in enumerate(values):
            aside = (order * 0.618034 % 1 - 0.5) * 26  # the golden ratio spreads them evenly, and always alike
            marks.append(Mark(place((value, 0))[0], round(middle + aside, 1), kind, f"{value:.3f} ms"))
        x = place((sorted(values)[len(values) // 2], 0))[0]
        paths.append(Path(f"M{x},{middle - 19:.1f}V{middle + 19:.1f}", f"{kind} median", "median"))
    x_drawn = tuple(Tick(place((x, 0))[0], written(x, x_ticks)) for x in x_ticks)
    shape = {"height": height, "bottom": height - BOTTOM, "left": 82.0, "top": 8.0}
    return Chart(x_label, "", x_drawn, tuple(ticks), tuple(paths), tuple(marks), title, **shape)


def _placing(
    x_ticks: Sequence[float], y_ticks: Sequence[float], height: float = HEIGHT, left: float = LEFT
) -> Callable[[Point], Point]:
    top = TOP if height == HEIGHT else 8.0

    def place(point: Point) -> Point:
        across = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        x = left + across * (WIDTH - RIGHT - left)
        return round(x, 1), round(height - BOTTOM - up * (height - BOTTOM - top), 1)

    return place


def _d(points: Sequence[Point], steps: bool) -> str:
    (x, y), *others = points
    drawn = [f"M{x},{y}"]
    drawn += [f"H{x}V{y}" if steps else f"L{x},{y}" for x, y in others]
    return "".join(drawn)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _marks(dots: Sequence[Dot], places: Sequence[Point]) -> tuple[Mark, ...]:
    """Labels go beside their dot wherever they touch nothing; where there is no room, they are left out."""
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    marks = []
    for number, (dot, (x, y)) in enumerate(zip(dots, places, strict=True)):
        mark = Mark(x, y, dot.kind, dot.title)
        for label_x, label_y, anchor in _around(x, y) if dot.label else ():
            box = _box(dot.label, label_x, label_y, anchor)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - LINE and box[3] <= HEIGHT - BOTTOM
            others = taken[:number] + taken[number + 1 :]
            if inside and not any(_touch(box, other) for other in others):
                taken.append(box)
                mark = Mark(x, y, dot.kind, dot.title, dot.label, label_x, label_y, anchor)
                break
        marks.append(mark)
    return tuple(marks)


def _around(x: float, y: float) -> list[tuple[float, float, str]]:
    """Above and left first: a front's staircase leaves its points to the right, and comes to them from below."""
    return [
        *((x - 7, y - 7, "end"), (x, y - 9, "middle"), (x - 9, y + 4, "end"), (x + 7, y - 7, "start")),
        *((x - 7, y + 15, "end"), (x + 7, y + 15, "start"), (x + 9, y + 4, "start"), (x, y + 18, "middle")),
    ]


def _box(text: str, x: float, y: float, anchor: str) -> Box:
    wide = LETTER * len(text)
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
    return left, y - LINE + 3, left + wide, y + 3


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
