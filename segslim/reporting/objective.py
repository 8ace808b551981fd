"""What a run returns to a sweeper that searches: figures of its report, and what a missed bound adds to them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from segslim.config import Objective
from segslim.errors import UserError

MEASURED = (
    *("miou", "accuracy", "kappa", "dice", "flops", "params", "size_bytes"),
    *(f"latency_ms.{statistic}" for statistic in ("mean", "median", "p99", "std")),
)
FIGURES = (
    *(f"{lane}.{name}" for lane in ("baseline", "compressed") for name in MEASURED),
    *(f"change.{name}" for name in ("flops", "params", "size", "latency", "miou")),
)


def check_objective(objective: Objective) -> None:
    """Raises UserError for a figure that no report has."""
    _check("objective.figures", objective.figures)
    _check("objective.bounds", [bound.figure for bound in objective.bounds])


def objective_of(report: Mapping[str, Any], objective: Objective) -> float | tuple[float, ...]:
    """One number for each of objective.figures, NaN where it was not measured; a tuple where there are several.

    Each grows by objective.penalty for every unit by which one of objective.bounds is missed, so bounds are for
    figures that a search makes small.
    """
    missed = sum(max(0.0, bound.at_least - figure_of(report, bound.figure)) for bound in objective.bounds)
    values = tuple(figure_of(report, name) + objective.penalty * missed for name in objective.figures)
    return values[0] if len(values) == 1 else values


def _check(key: str, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise UserError(f"{key}: a report has no figure {unknown[0]}; it has {', '.join(FIGURES)}")


def figure_of(report: Mapping[str, Any], name: str) -> float:
    value: Any = report
    for part in name.split("."):
        value = (value or {}).get(part)
    return math.nan if value is None else float(value)
