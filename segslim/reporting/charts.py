"""Charts as plain values: where every tick, line, dot and label goes, in the units of an SVG. The template draws them.

They are small (360 x 250): text keeps its size on a telephone, and three fit side by side on a desktop.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 26.0, 38.0
LETTER, LINE = 6.3, 13.0  # width of a label's letter and height of its line, estimated

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Data to draw as a line. `kind` is the CSS class of its colour, `title` the tooltip."""

    points: Sequence[Point]
    kind: str
    title: str = ""
    steps: bool = False  # a staircase: a value holds until the next point


@dataclass(frozen=True)
class Dot:
    """Data to draw as a dot, with a label where there is room for one; `link`: the page that a click opens."""

    point: Point
    kind: str
    title: str = ""
    label: str = ""
    link: str = ""


@dataclass(frozen=True)
class Tick:
    position: float
    text: str


@dataclass(frozen=True)
class Path:
    """A drawn line; `data` is the `d` of an SVG path."""

    data: str
    kind: str
    title: str


@dataclass(frozen=True)
class Mark:
    """A drawn dot and its label."""

    x: float
    y: float
    kind: str
    title: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"
    link: str = ""


@dataclass(frozen=True)
class Chart:
    """All positions in the SVG's units; (left, top) to (right, bottom) is the area that the data is drawn in."""

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
    """At most `most` + 1 round numbers that enclose low..high, 1, 2 or 5 times a power of ten apart."""
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


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as distinguish it from its neighbours."""
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
) -> Chart:
    """Lays out lines and dots.

    Args:
        title: the heading, also for a screen reader.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        curves: drawn in their order; together with `dots` they have at least one point.
        dots: drawn on top of the curves.
        from_zero: the horizontal axis begins at 0.
    """
    points = [point for curve in curves for point in curve.points] + [dot.point for dot in dots]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks, y_ticks = nice_ticks(0.0 if from_zero else min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    position = _scale(x_ticks, y_ticks, LEFT, TOP, HEIGHT - BOTTOM)
    return Chart(
        x_label,
        y_label,
        tuple(Tick(position((x, y_ticks[0]))[0], tick_text(x, x_ticks)) for x in x_ticks),
        tuple(Tick(position((x_ticks[0], y))[1], tick_text(y, y_ticks)) for y in y_ticks),
        tuple(
            Path(_path_data([position(p) for p in curve.points], curve.steps), curve.kind, curve.title)
            for curve in curves
        ),
        _place_marks(dots, [position(dot.point) for dot in dots]),
        title,
    )


def strip_chart(
    title: str, x_label: str, rows: Sequence[tuple[str, str, Sequence[float], float]], height: float = 150.0
) -> Chart:
    """Every sample as a dot, a row for each series, with a bar at the figure that stands for it.

    Args:
        title: the heading, also for a screen reader.
        x_label: below the horizontal axis.
        rows: (name, CSS class, samples, that figure, all in ms), from top to bottom.
        height: of the chart in the units of the SVG.
    """
    left, top, bottom = 82.0, 8.0, height - BOTTOM
    samples = [sample for _, _, values, _ in rows for sample in values]
    x_ticks = nice_ticks(min(samples), max(samples))
    position = _scale(x_ticks, [0.0, 1.0], left, top, bottom)
    marks, y_ticks, paths = [], [], []
    for number, (name, kind, values, figure) in enumerate(rows):
        middle = position((0, 1 - (number + 0.5) / len(rows)))[1]
        y_ticks.append(Tick(middle, name))
        for order, value in enumerate(values):
            offset = (order * 0.618034 % 1 - 0.5) * 26  # multiples of the golden ratio spread evenly, without chance
            marks.append(Mark(position((value, 0))[0], round(middle + offset, 1), kind, f"{value:.3f} ms"))
        x = position((figure, 0))[0]
        paths.append(Path(f"M{x},{middle - 19:.1f}V{middle + 19:.1f}", f"{kind} level", f"{figure:.3f} ms"))
    drawn_ticks = tuple(Tick(position((x, 0))[0], tick_text(x, x_ticks)) for x in x_ticks)
    shape = {"height": height, "left": left, "top": top, "bottom": bottom}
    return Chart(x_label, "", drawn_ticks, tuple(y_ticks), tuple(paths), tuple(marks), title, **shape)


def _scale(
    x_ticks: Sequence[float], y_ticks: Sequence[float], left: float, top: float, bottom: float
) -> Callable[[Point], Point]:
    """From the data to a position in the SVG, where y grows downwards."""

    def position(point: Point) -> Point:
        across = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(left + across * (WIDTH - RIGHT - left), 1), round(bottom - up * (bottom - top), 1)

    return position


def _path_data(points: Sequence[Point], steps: bool) -> str:
    (x, y), *others = points
    return f"M{x},{y}" + "".join(f"H{x}V{y}" if steps else f"L{x},{y}" for x, y in others)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _place_marks(dots: Sequence[Dot], places: Sequence[Point]) -> tuple[Mark, ...]:
    """Puts each label beside its dot where it overlaps nothing, and leaves it out where there is no such place."""
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    marks = []
    for number, (dot, (x, y)) in enumerate(zip(dots, places, strict=True)):
        mark = Mark(x, y, dot.kind, dot.title, link=dot.link)
        for label_x, label_y, anchor in _label_positions(x, y) if dot.label else ():
            width = LETTER * len(dot.label)
            left = {"start": label_x, "middle": label_x - width / 2, "end": label_x - width}[anchor]
            box = (left, label_y - LINE + 3, left + width, label_y + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - LINE and box[3] <= HEIGHT - BOTTOM
            others = taken[:number] + taken[number + 1 :]  # a label may touch its own dot
            if inside and not any(_overlap(box, other) for other in others):
                taken.append(box)
                mark = Mark(x, y, dot.kind, dot.title, dot.label, label_x, label_y, anchor, dot.link)
                break
        marks.append(mark)
    return tuple(marks)


def _label_positions(x: float, y: float) -> list[tuple[float, float, str]]:
    # above and left first: the staircase of a front leaves its points to the right, and reaches them from below
    return [
        *((x - 7, y - 7, "end"), (x, y - 9, "middle"), (x - 9, y + 4, "end"), (x + 7, y - 7, "start")),
        *((x - 7, y + 15, "end"), (x + 7, y + 15, "start"), (x + 9, y + 4, "start"), (x, y + 18, "middle")),
    ]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
