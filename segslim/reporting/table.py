"""The table that sets the compressed network beside its baseline, and the verdict in one line."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from segslim.reporting import figures
from segslim.reporting.figures import FIGURES, MISSING


def comparison(report: Mapping[str, Any]) -> Table:
    """mIoU, FLOPs, parameters, size, latency: baseline, compressed and the change; or the dense network alone."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    dense_alone = figures.is_dense(report)
    for heading in ("", "dense") if dense_alone else ("", "baseline", "compressed", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after, change = report["baseline"], report["compressed"], report["change"]
    rows = [(figure.name, figure.of(before), figure.of(after), figure.change(change)) for figure in FIGURES]
    rows.append(("engine", before["engine"] or MISSING, after["engine"] or MISSING, ""))
    rows.append(("precision", before.get("precision") or MISSING, after.get("precision") or MISSING, ""))
    for name, *cells in rows:
        table.add_row("  " + name, *(cells[:1] if dense_alone else cells))
    return table


def verdict(report: Mapping[str, Any]) -> str:
    """Whether the compressed network is faster on its engine, said as it is, and what would be better, if known."""
    found = figures.verdict(report)
    if found is None:
        return ""
    faster, words = found
    first = words if faster else words.replace("not faster", "[bold yellow]not faster[/]", 1)
    return "".join(f"\n  {line}" for line in (first, *map(escape, report.get("advice", ()))))
