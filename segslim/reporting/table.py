"""The table that sets the compressed network beside its baseline, and the verdict in one line."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table

MISSING = "-"
NOISE = 0.02  # a smaller change of latency than this share is not told apart from none


def comparison(report: Mapping[str, Any]) -> Table:
    """mIoU, FLOPs, parameters, size, latency: baseline, compressed and the change; or the dense network alone."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    dense_alone = report["strategy"] == "none"
    for heading in ("", "dense") if dense_alone else ("", "baseline", "compressed", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after, change = report["baseline"], report["compressed"], report["change"]
    rows = [
        (name, _shown(value(before), show), _shown(value(after), show), delta(change))
        for name, value, show, delta in _rows()
    ]
    rows.append(("engine", before["engine"] or MISSING, after["engine"] or MISSING, ""))
    for name, *cells in rows:
        table.add_row("  " + name, *(cells[:1] if dense_alone else cells))
    return table


def verdict(report: Mapping[str, Any]) -> str:
    """Whether the compressed network is faster on its engine: said as it is."""
    latency, miou = report["change"]["latency"], report["change"]["miou"]
    if report["strategy"] == "none" or latency is None:
        return ""
    words = "faster" if latency < -NOISE else "[bold yellow]not faster[/]"
    lost = "" if miou is None else f", mIoU {miou:+.4f}"
    return f"\n  {words} on {report['compressed']['engine']}: {latency:+.1%} time{lost}"


_Row = tuple[str, Callable[[Any], Any], Callable[[float], str], Callable[[Any], str]]


def _rows() -> list[_Row]:
    def percent(key: str) -> Callable[[Any], str]:
        return lambda change: MISSING if change[key] is None else f"{change[key]:+.1%}"

    return [
        ("mIoU", lambda m: m["miou"], "{:.4f}".format, lambda c: MISSING if c["miou"] is None else f"{c['miou']:+.4f}"),
        ("pixel accuracy", lambda m: m["accuracy"], "{:.4f}".format, lambda c: ""),
        ("FLOPs (MACs)", lambda m: m["flops"], _si, percent("flops")),
        ("parameters", lambda m: m["params"], _si, percent("params")),
        ("size", lambda m: m["size_bytes"], lambda v: f"{_si(v)}B", percent("size")),
        ("latency", lambda m: (m["latency_ms"] or {}).get("mean"), "{:.2f} ms".format, percent("latency")),
    ]


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return MISSING if value is None else show(value)


def _si(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} "
