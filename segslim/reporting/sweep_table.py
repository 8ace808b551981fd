"""The sweep's table on the screen: a row a job, and after it the failed ones with why and what runs them alone."""

from collections.abc import Collection, Sequence
from textwrap import shorten

from rich.markup import escape
from rich.table import Table

from segslim.reporting.figures import FLOPS, LATENCY, MIOU, PARAMS
from segslim.reporting.jobs import Job

STYLES = {"failed": "bold red", "unfinished": "yellow", "not begun": "dim"}
LEFT = ("overrides", "")


def jobs_table(jobs: Sequence[Job], best: Collection[str]) -> Table:
    """`best`: names of the jobs on the Pareto front of mIoU and latency."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("  job", "overrides", "mIoU", "change", "FLOPs", "params", "latency", "change", "engine", ""):
        table.add_column(heading, justify="left" if heading in LEFT else "right")
    for job in jobs:
        own = escape(" ".join(job.own))
        if job.report is None:
            table.add_row(job.name, own, f"[{STYLES[job.status]}]{job.status}[/]")
            continue
        after, change = job.report["compressed"], job.report["change"]
        figures = (MIOU.of(after), *(f.change(change) for f in (MIOU, FLOPS, PARAMS)))
        time = (LATENCY.of(after), LATENCY.change(change), after["engine"] or "-")
        table.add_row(job.name, own, *figures, *time, "[green]Pareto[/]" if job.name in best else "")
    return table


def failures(jobs: Sequence[Job]) -> list[str]:
    return [
        f"\n  job {job.name} failed: {shorten(job.error, 400)}\n    alone: {job.command}"
        for job in jobs
        if job.status == "failed"
    ]


def rest(jobs: Sequence[Job], command: str) -> list[str]:
    """What to do about the jobs that have no end; `command` started the sweep."""
    left = [job for job in jobs if job.status in ("unfinished", "not begun")]
    if not left:
        return []
    begun = sum(job.status == "unfinished" for job in left)
    told = ", ".join(f"{n} {what}" for n, what in ((begun, "unfinished"), (len(left) - begun, "not begun")) if n)
    return [f"\n  {len(left)} of {len(jobs)} jobs are not done ({told}); the same command goes on:\n    {command}"]
