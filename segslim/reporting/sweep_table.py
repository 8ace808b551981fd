"""The sweep's table on the screen: a row a job, the failed ones with why and the command that runs them alone."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table


def print_sweep(folder: Path) -> None:
    """Prints what the jobs below a sweep's folder came to, as far as they have."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    jobs = sorted((job for job in folder.glob("*/") if (job / ".hydra").is_dir()), key=_number)
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    headings = ("job", "overrides", "mIoU", "FLOPs", "params", "latency", "engine")
    for heading in headings:
        table.add_column(
            "  job" if heading == "job" else heading, justify="left" if heading == "overrides" else "right"
        )
    failures = []
    common = _common([_overrides(job) for job in jobs])
    for job in jobs:
        own = " ".join(text for text in _overrides(job) if text not in common)
        failure = _read(job / "failure.json")
        if failure:
            failures.append((job.name, failure))
            table.add_row(job.name, own, "[bold red]failed[/]")
        else:
            table.add_row(job.name, own, *_figures(_read(job / "report.json")))
    console.print()
    console.print(table)
    for name, failure in failures:
        console.print(f"\n  job {name} failed: {failure['error']}\n    alone: {failure['command']}", markup=False)
    console.print(f"\n  sweep: {os.path.relpath(folder)}", markup=False)


def _figures(report: Mapping[str, Any]) -> list[str]:
    if not report:
        return ["unfinished"]
    after, change = report["compressed"], report["change"]
    latency = (after["latency_ms"] or {}).get("mean")
    return [
        "-" if after["miou"] is None else f"{after['miou']:.4f}",
        *(_percent(change[key]) for key in ("flops", "params")),
        "-" if latency is None else f"{latency:.2f} ms",
        _percent(change["latency"]),
        after["engine"] or "-",
    ]


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:+.1%}"


def _common(overrides: list[list[str]]) -> set[str]:
    return set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()


def _overrides(job: Path) -> list[str]:
    file = job / ".hydra" / "overrides.yaml"
    return list(yaml.safe_load(file.read_text(encoding="utf-8")) or []) if file.exists() else []


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _number(job: Path) -> tuple[int, str]:
    return (int(job.name) if job.name.isdigit() else 1 << 30, job.name)
