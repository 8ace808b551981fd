"""What a sweep leaves: the table on the screen, sweep.csv, and sweep.html (sweep_page.py)."""

import csv
import io
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.table import Table
from rich.text import Text

from segslim.reporting.jobs import Job, read_jobs, sweep_command
from segslim.reporting.metrics import FIGURES, FLOPS, LATENCY, PARAMS, blindness, figure_value, quality
from segslim.reporting.page import drawn_from, render
from segslim.reporting.report import write_atomically
from segslim.reporting.sweep_page import comparable, context, methods, on_front
from segslim.screen import Screen

COLUMNS = ("job", "status", "pareto", "overrides", "error", "command", "strategy", "model", "dataset", "engine")
STYLES = {"failed": "bold red", "unfinished": "yellow", "not begun": "dim"}


def write_sweep(folder: Path) -> list[Job]:
    """Prints the table of the jobs in `folder`, which it returns, and writes sweep.csv and sweep.html beside them.

    Raises UserError for a folder that holds no job.
    """
    jobs = read_jobs(folder)
    best = on_front(jobs)
    write_atomically(sweep_csv(jobs, best), folder / "sweep.csv")
    with drawn_from(folder):
        page = render("sweep.html", context(folder, jobs))
    write_atomically(page, folder / "sweep.html")
    console = Screen(soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    console.print()
    console.print(jobs_table(jobs, best))
    for job in jobs:
        if job.status == "failed":
            text = f"\n  job {job.name} failed: {shorten(job.error, 400)}\n    alone: {job.command}"
            console.print(text)
    left = {status: sum(job.status == status for job in jobs) for status in ("unfinished", "not begun")}
    if any(left.values()):
        counts = ", ".join(f"{count} {status}" for status, count in left.items() if count)
        text = f"\n  {sum(left.values())} of {len(jobs)} jobs are not done ({counts}); the same command goes on:"
        console.print(f"{text}\n    {sweep_command(folder)}")
    console.print(f"\n  sweep: {os.path.relpath(folder / 'sweep.html')}")
    return jobs


def jobs_table(jobs: Sequence[Job], best: Collection[str]) -> Table:
    """A row a job. `best` are the names of the jobs on the Pareto front of mIoU and latency; milliseconds are as if all
    had been timed at one time.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    judged = quality(next((job.report for job in jobs if job.report is not None), None))
    measured, mixed = comparable(jobs), len(methods(jobs)) > 1
    headings = ["  job", "overrides", judged.name, "change", "FLOPs", "params", "latency", "change", "engine"]
    for heading in (*headings, *(["pruned by"] if mixed else []), ""):
        folded = heading in ("overrides", "pruned by")
        table.add_column(heading, justify="left" if folded or not heading else "right", no_wrap=not folded)
    for job in jobs:
        own = " ".join(job.own)
        if job.report is None:
            table.add_row(job.name, own, Text(job.status, STYLES[job.status]))
            continue
        after, change = measured.get(job.name) or job.report["compressed"], job.report["change"]
        changes = (metric.change_text(change) for metric in (judged, FLOPS, PARAMS))
        latency = (LATENCY.text(after), LATENCY.change_text(change), after["engine"] or "-")
        tag = (
            Text("one class only", "yellow")
            if blindness(job.report)
            else Text("timed beside others", "yellow")
            if job.beside
            else Text("Pareto", "green")
            if job.name in best
            else ""
        )
        method = [job.report.get("pruned_by") or "-"] if mixed else []
        table.add_row(job.name, own, judged.text(after), *changes, *latency, *method, tag)
    return table


def sweep_csv(jobs: Sequence[Job], best: Collection[str]) -> str:
    """One line a job. A figure is named as in report.json, compressed.latency_ms.mean; what was not measured is empty.

    `pareto` says whether no other job has both more mIoU and less latency (`best` has their names); `overrides` are
    quoted as for a shell. Text that a spreadsheet would compute has a ' before it.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, *FIGURES])
    for job in jobs:
        front, report = "yes" if job.name in best else "", job.report
        row: list[Any] = [job.name, job.status, front, shlex.join(job.overrides), job.error, job.command]
        if report is not None:
            values = [figure_value(report, name) for name in FIGURES]
            row += [*(report.get(key, "") for key in ("strategy", "model", "dataset")), report["compressed"]["engine"]]
            row += ["" if value != value else value for value in values]  # NaN: not measured
        row += [""] * (len(COLUMNS) + len(FIGURES) - len(row))
        writer.writerow([_no_formula(cell) for cell in row])
    return stream.getvalue()


def _no_formula(cell: Any) -> Any:
    return (
        f"'{cell}"
        if isinstance(cell, str) and cell != "-" and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        else cell
    )
