"""The figures of a report in their order, each with how to find it and how to write it: for table, page and CSV."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "-"
NOISE = 0.02  # a smaller change of latency than this share is not told apart from none

Measured = Mapping[str, Any]  # `baseline` or `compressed` of report.json


@dataclass(frozen=True)
class Figure:
    """One number of a network. `key` is its name in `change`, or "" where report.json has no change of it."""

    name: str
    key: str
    value: Callable[[Measured], float | None]
    write: Callable[[float], str]

    def of(self, measured: Measured) -> str:
        value = self.value(measured)
        return MISSING if value is None else self.write(value)

    def change(self, change: Mapping[str, float | None]) -> str:
        value = change.get(self.key)
        if value is None:
            return MISSING if self.key else ""
        return f"{value:+.4f}" if self.key == "miou" else f"{value:+.1%}"


def si(value: float) -> str:
    """1.40 M: three or four digits, a space and the prefix, to which a unit can be added."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {prefix}"
    return f"{value:.0f} "


def latency(measured: Measured) -> float | None:
    """Milliseconds of one image, the mean."""
    mean: float | None = (measured["latency_ms"] or {}).get("mean")
    return mean


MIOU = Figure("mIoU", "miou", lambda m: m["miou"], "{:.4f}".format)
ACCURACY = Figure("pixel accuracy", "", lambda m: m["accuracy"], "{:.4f}".format)
FLOPS = Figure("FLOPs (MACs)", "flops", lambda m: m["flops"], lambda v: si(v).rstrip())
PARAMS = Figure("parameters", "params", lambda m: m["params"], lambda v: si(v).rstrip())
SIZE = Figure("size", "size", lambda m: m["size_bytes"], lambda v: f"{si(v)}B")
LATENCY = Figure("latency", "latency", latency, "{:.2f} ms".format)

FIGURES = (MIOU, ACCURACY, FLOPS, PARAMS, SIZE, LATENCY)
KEY_FIGURES = (MIOU, LATENCY, FLOPS, PARAMS, SIZE)


def is_dense(report: Mapping[str, Any]) -> bool:
    """Whether nothing was compressed, so that there is nothing to compare with."""
    return bool(report["strategy"] == "none")


def speed(report: Mapping[str, Any]) -> str | None:
    """faster, slower or unclear: whether mean and median agree on a change that is more than noise. None where it was
    not measured, or nothing was compressed.
    """
    mean = report["change"]["latency"]
    if is_dense(report) or mean is None:
        return None
    median = report["compressed"]["latency_ms"]["median"] / report["baseline"]["latency_ms"]["median"] - 1
    if max(mean, median) < -NOISE:
        return "faster"
    return "slower" if min(mean, median) > NOISE else "unclear"


def verdict(report: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Whether the compressed network is faster on its engine, and that in words; None where no one measured it."""
    found, change = speed(report), report["change"]
    if found is None:
        return None
    lost = "" if change["miou"] is None else f", mIoU {change['miou']:+.4f}"
    words = "faster" if found == "faster" else "not faster"
    noise = " (within the noise)" if found == "unclear" else ""
    return found == "faster", f"{words} on {report['compressed']['engine']}: {change['latency']:+.1%} time{noise}{lost}"
