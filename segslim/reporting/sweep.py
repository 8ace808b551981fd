"""What a sweep came to: the table on the screen, sweep.csv and sweep.html, as far as its jobs are done."""

import csv
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from segslim.reporting.jobs import Job, is_sweep, read_jobs, sweep_command
from segslim.reporting.objective import FIGURES, figure_of
from segslim.reporting.render import render, write_whole
from segslim.reporting.sweep_page import context, on_front
from segslim.reporting.sweep_table import failures, jobs_table, rest

__all__ = ["is_sweep", "sweep_csv", "write_sweep"]

COLUMNS = ("job", "status", "pareto", "overrides", "error", "command", "strategy", "model", "dataset", "engine")


def write_sweep(folder: Path) -> None:
    """Prints the table of the jobs in `folder`, and writes sweep.csv and sweep.html beside them.

    Raises UserError for a folder that holds no job.
    """
    jobs = read_jobs(folder)
    write_whole(sweep_csv(jobs), folder / "sweep.csv")
    write_whole(render("sweep.html", context(folder, jobs)), folder / "sweep.html")
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    console.print()
    console.print(jobs_table(jobs, on_front(jobs)))
    for told in (*failures(jobs), *rest(jobs, sweep_command(folder))):
        console.print(told, markup=False)
    console.print(f"\n  sweep: {os.path.relpath(folder / 'sweep.html')}", markup=False)


def sweep_csv(jobs: Sequence[Job]) -> str:
    """One line a job. A figure is named as in report.json, compressed.latency_ms.mean; what was not measured is empty.

    `pareto` says whether no other job has both more mIoU and less latency; `overrides` are quoted as for a shell.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, *FIGURES])
    best = on_front(jobs)
    for job in jobs:
        report = job.report or {}
        measured = (figure_of(report, name) for name in FIGURES) if job.report else ["" for _ in FIGURES]
        named = [report.get(key, "") for key in ("strategy", "model", "dataset")]
        engine = report["compressed"]["engine"] if job.report else ""
        row = (
            job.name,
            job.status,
            "yes" if job.name in best else "",
            shlex.join(job.overrides),
            job.error,
            job.command,
        )
        writer.writerow([*row, *named, engine, *("" if value != value else value for value in measured)])
    return stream.getvalue()
