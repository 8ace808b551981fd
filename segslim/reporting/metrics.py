"""The metrics of a report: how each is read and written, which change of latency counts, what a search is given."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segslim.config import Objective
from segslim.errors import UserError
from segslim.evaluation.latency import Ratio

MISSING = "-"

Report = Mapping[str, Any]  # report.json
Network = Mapping[str, Any]  # its `baseline` or its `compressed`

_MEASURED = (
    *("agreement.miou", "agreement.equal_pixels", "miou", "accuracy", "kappa", "dice", "flops", "params", "size_bytes"),
    *(f"latency_ms.{statistic}" for statistic in ("quickest", "mean", "median", "p99", "std")),
)
#: What `objective.figures` may name, and the columns of sweep.csv: paths in report.json.
FIGURES = (
    *(f"{role}.{name}" for role in ("baseline", "compressed") for name in _MEASURED),
    *(f"change.{name}" for name in ("flops", "params", "size", "latency", "miou", "agreement")),
)


@dataclass(frozen=True)
class Metric:
    """One number of a network. `key` is its name in report.json's `change`, or "" where that has none of it."""

    name: str
    key: str
    value: Callable[[Network], float | None]
    format: Callable[[float], str]

    def text(self, network: Network) -> str:
        value = self.value(network)
        return MISSING if value is None else self.format(value)

    def change_text(self, change: Mapping[str, float | None]) -> str:
        value = change.get(self.key)
        if value is None:
            return MISSING if self.key else ""
        text = f"{value:+.4f}" if self.key in ("miou", "agreement") else f"{value:+.1%}"
        return text if any(digit in text for digit in "123456789") else "0"  # neither +0.0 nor -0.0


def si(value: float) -> str:
    """ "1.40 M": two decimals, a space and the prefix, to which a unit can be added."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {prefix}"
    return f"{value:.0f} "


def latency_of(network: Network) -> float | None:
    """Milliseconds an image, undisturbed."""
    quickest: float | None = (network["latency_ms"] or {}).get("quickest")
    return quickest


def _agreement(figure: str) -> Callable[[Network], float | None]:
    return lambda network: (network.get("agreement") or {}).get(figure)


MIOU = Metric("mIoU", "miou", lambda network: network["miou"], "{:.4f}".format)
ACCURACY = Metric("pixel accuracy", "", lambda network: network["accuracy"], "{:.4f}".format)
#: In their place where there are no labels.
AGREEMENT = Metric("mIoU against the dense network", "agreement", _agreement("miou"), "{:.4f}".format)
EQUAL_PIXELS = Metric("pixels equal to the dense network's", "", _agreement("equal_pixels"), "{:.2%}".format)
FLOPS = Metric("FLOPs (MACs)", "flops", lambda network: network["flops"], lambda value: si(value).rstrip())
PARAMS = Metric("parameters", "params", lambda network: network["params"], lambda value: si(value).rstrip())
SIZE = Metric("size", "size", lambda network: network["size_bytes"], lambda value: f"{si(value)}B")
LATENCY = Metric("latency", "latency", latency_of, "{:.2f} ms".format)

_COSTS = (FLOPS, PARAMS, SIZE, LATENCY)


def is_report(found: Mapping[str, Any]) -> bool:
    """Whether all is there, and of the right type, that tables show of a report: it may be anybody's."""
    try:
        numbers = [figure_value(found, name) for name in FIGURES]
        texts = [metric.text(found[role]) for metric in all_metrics(found) for role in ("baseline", "compressed")]
        names = [found[key] for key in ("strategy", "model", "dataset", "seed", "stages")]
        verdict(found)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return False
    return bool(numbers and texts and names)


def quality(report: Report | None) -> Metric:
    """mIoU, or without labels that against the dense network's predictions."""
    return AGREEMENT if report is not None and report["compressed"].get("agreement") else MIOU


def all_metrics(report: Report) -> tuple[Metric, ...]:
    """What the table of a run shows."""
    judged = quality(report)
    return (judged, EQUAL_PIXELS if judged is AGREEMENT else ACCURACY, *_COSTS)


def key_metrics(report: Report | None) -> tuple[Metric, ...]:
    """What the cards of a page, and the table of a sweep, show."""
    return (quality(report), LATENCY, FLOPS, PARAMS, SIZE)


def is_dense(report: Report) -> bool:
    """Whether nothing was compressed, so that there is nothing to compare with."""
    return bool(report["strategy"] == "none")


def speed(report: Report) -> str | None:
    """ "faster", "slower" or "unclear": whether all of the change's 95 % interval says so.

    None where latency was not measured, or nothing was compressed.
    """
    if is_dense(report) or report["change"]["latency"] is None:
        return None
    change, (low, high) = report["change"]["latency"], report["change"]["latency_interval"]
    return Ratio(1 + change, 1 + low, 1 + high).verdict


def verdict(report: Report) -> str:
    """ "faster on openvino: 20.1% less time for an image (95 %: 18.0 to 22.4% less), mIoU -0.0212"; "" where `speed` is
    None.
    """
    found = speed(report)
    if found is None:
        return ""
    words = {"faster": "faster", "slower": "not faster", "unclear": "no measurable difference"}[found]
    low, high = report["change"]["latency_interval"]
    if low * high > 0:
        ends = sorted((abs(low), abs(high)))
        interval = f"{ends[0]:.1%} to {ends[1]:.1%} {_less(low)}"
    else:
        interval = f"{-low:.1%} less to {high:.1%} more"
    lost, latency = quality_change(report), report["change"]["latency"]
    time = f"{abs(latency):.1%} {_less(latency)} time for an image (95 %: {interval})"
    return f"{words} on {report['compressed']['engine']}: {time}" + (lost and f", {lost}")


def _less(change: float) -> str:
    return "less" if change < 0 else "more"


def quality_change(report: Report) -> str:
    """ "mIoU -0.0212", or "98.70% of the pixels equal to the dense network's"; "" where neither was measured."""
    if quality(report) is AGREEMENT:
        return f"{EQUAL_PIXELS.text(report['compressed'])} of the {EQUAL_PIXELS.name}"
    return "" if report["change"]["miou"] is None else f"mIoU {MIOU.change_text(report['change'])}"


def blind(report: Report, role: str) -> bool:
    """Whether a network recognizes one class at most, although the labels have several: it has learned nothing."""
    network = report[role]
    ious = [iou for iou in (network.get("agreement") or network).get("class_iou") or () if iou is not None]
    return len(ious) > 1 and sum(iou > 0 for iou in ious) <= 1


def blindness(report: Report) -> str:
    """ "both networks recognize one class only, background: ..."; "" where they recognize more."""
    roles = [role for role in ("baseline", "compressed") if blind(report, role)]
    if not roles:
        return ""
    ious = report[roles[0]].get("agreement") or report[roles[0]]
    names = report.get("classes") or list(map(str, range(len(ious["class_iou"]))))
    found = [name for name, iou in zip(names, ious["class_iou"], strict=False) if iou]
    who = "the network recognizes" if is_dense(report) else f"the {roles[0]} network recognizes"
    who = "both networks recognize" if len(roles) == 2 and not is_dense(report) else who
    remedy = (
        "a lower compress.ratio, or more retrain.iters" if roles == ["compressed"] else "train for longer (train.iters)"
    )
    return f"{who} one class only{', ' + found[0] if found else ''}: {remedy}"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, value) that no other dominates, by rising cost.

    A point is dominated by one that costs no more and is worth no less, unless they are equal.
    """
    front: list[int] = []
    for position in sorted(range(len(points)), key=lambda position: (points[position][0], -points[position][1])):
        point, best = points[position], points[front[-1]] if front else None
        if best is None or point[1] > best[1] or point == best:
            front.append(position)
    return front


def check_objective(objective: Objective) -> None:
    """Raises UserError for a figure that no report has."""
    _check("objective.figures", objective.figures)
    _check("objective.bounds", [bound.figure for bound in objective.bounds])


def _check(key: str, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise UserError(f"{key}: a report has no figure {unknown[0]}; it has {', '.join(FIGURES)}")


def objective_value(report: Report, objective: Objective) -> float | tuple[float, ...]:
    """What a run returns to a sweeper that searches: one number for each of objective.figures, as a tuple where there
    are several, NaN where it was not measured.

    Each grows by objective.penalty for every unit by which one of objective.bounds is missed, so bounds are for
    figures that a search minimizes.
    """
    missed = sum(max(0.0, bound.at_least - figure_value(report, bound.figure)) for bound in objective.bounds)
    values = tuple(figure_value(report, name) + objective.penalty * missed for name in objective.figures)
    return values[0] if len(values) == 1 else values


def figure_value(report: Report, name: str) -> float:
    """The number at a path of FIGURES, NaN where it was not measured."""
    value: Any = report
    for part in name.split("."):
        value = (value or {}).get(part)
    return math.nan if value is None else float(value)
