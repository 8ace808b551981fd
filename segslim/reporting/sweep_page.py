"""sweep.html: mIoU against what each network costs, every job's figures, and the same pictures from all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from segslim.records import PICTURES
from segslim.reporting import artifacts, figures
from segslim.reporting.charts import Chart, Curve, Dot, chart
from segslim.reporting.difference import KINDS
from segslim.reporting.figures import FLOPS, LATENCY, MIOU, SIZE, Figure
from segslim.reporting.images import embedded
from segslim.reporting.jobs import Job, common_overrides
from segslim.reporting.page import class_legend, class_names, command, facts, made, rgb, sensitivity
from segslim.reporting.pareto import front

MOST_PICTURED = 6  # jobs, of those on the front, whose predictions are shown
MOST_CHARTS = 4  # of sensitivity, one for each analysis
AXES = {
    LATENCY: ("latency (ms)", 1.0),
    FLOPS: ("FLOPs (millions of MACs)", 1e-6),
    SIZE: ("size (MB)", 1e-6),
}


@dataclass(frozen=True)
class Network:
    """A point of the charts: a job's network, or a baseline that jobs have in common."""

    job: str  # "" for a baseline
    label: str
    title: str
    measured: figures.Measured


def context(folder: Path, jobs: Sequence[Job]) -> dict[str, Any]:
    """All that the template needs."""
    done = [job for job in jobs if job.report is not None]
    last = max((job.report for job in done if job.report), key=lambda r: r.get("made", ""), default=None)
    tone, first, second = headline(jobs)
    return {
        "title": f"sweep {folder.resolve().name}",
        "tone": tone,
        "headline": first,
        "summary": second,
        "made": made(last) if last else "",
        "jobs": jobs,
        "rows": [job_row(job) for job in jobs],
        "best": on_front(jobs),
        "charts": [drawn for figure in AXES if (drawn := scatter(figure, networks(jobs))) is not None],
        "classes": class_table(done),
        "sensitivities": sensitivities(done),
        "strips": strips(done, on_front(jobs)),
        "legend": class_legend(last) if last else [],
        "kinds": {kind: rgb(colour) for kind, colour in list(KINDS.items())[1:]},
        "common": command(common_overrides(jobs)),
        "facts": facts(last) if last else [],
        "last": last,
        "gone": [job.name for job in done if job.report and artifacts.gone(job.report)],
    }


def headline(jobs: Sequence[Job]) -> tuple[str, str, str]:
    """(good, bad or plain; how many became faster; how many there are, and the fastest)."""
    counts = {
        status: sum(job.status == status for job in jobs) for status in ("done", "failed", "unfinished", "not begun")
    }
    said = f"{len(jobs)} jobs: " + ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    speeds = {job.name: figures.speed(job.report) for job in jobs if job.report is not None}
    timed = [job for job in jobs if speeds.get(job.name) is not None]
    if not timed:
        return "plain", f"No latency to compare yet: {counts['done']} of {len(jobs)} jobs are done", said
    faster = sum(speeds[job.name] == "faster" for job in timed)
    fastest = min(timed, key=lambda job: _change(job))
    lost = fastest.report["change"]["miou"] if fastest.report else None
    best = f"{' '.join(fastest.own) or 'job ' + fastest.name}: {_change(fastest):+.1%} time"
    second = f"{said}. Least time: {best}" + ("" if lost is None else f", mIoU {lost:+.4f}") + "."
    if not faster:
        return "bad", f"None of {len(timed)} compressed networks is faster than its baseline", second
    return "good", f"{faster} of {len(timed)} compressed networks are faster than their baseline", second


def _change(job: Job) -> float:
    return float(job.report["change"]["latency"]) if job.report else 0.0


def networks(jobs: Sequence[Job]) -> list[Network]:
    """Every baseline once, then every job that is done and compressed something.

    A machine's speed drifts from job to job. So a latency is given by its job's own baseline, which was timed in turn
    with it: as if that had taken what it took in the middle of all jobs that timed it in the same way.
    """
    done = [job.report for job in jobs if job.report is not None]
    ways = [(_baseline_of(report), _way(report)) for report in done]
    usual = {way: _median(r["baseline"] for r, own in zip(done, ways, strict=True) if own == way) for way in ways}
    baselines: dict[Any, Network] = {}
    found = []
    for job in jobs:
        if job.report is None:
            continue
        before, name, key = job.report["baseline"], job.report["model"], _baseline_of(job.report)
        label = "baseline" if not baselines or key in baselines else f"baseline {name}"
        own = figures.latency(before)
        speed = usual[key, _way(job.report)] / own if own else 1.0
        baselines.setdefault(key, Network("", label, f"baseline of {name}", _timed(before, speed)))
        if not figures.is_dense(job.report):
            measured = _timed(job.report["compressed"], speed)
            found.append(Network(job.name, job.label, f"job {job.name}: {' '.join(job.own)}", measured))
    return [*baselines.values(), *found]


def _baseline_of(report: artifacts.Report) -> Any:
    """What tells one baseline from another."""
    before = report["baseline"]
    return before.get("deployment") or (report["model"], before["flops"], before["size_bytes"])


def _way(report: artifacts.Report) -> str:
    """With what a baseline was timed, and on what."""
    machine = report.get("machine", {})
    return str((report["baseline"].get("session"), machine.get("processor"), machine.get("cores")))


def _median(measured: Iterator[figures.Measured]) -> float:
    return median([took for took in map(figures.latency, measured) if took is not None] or [0.0])


def _timed(measured: figures.Measured, speed: float) -> figures.Measured:
    took = figures.latency(measured)
    return measured if took is None else {**measured, "latency_ms": {**measured["latency_ms"], "mean": took * speed}}


def on_front(jobs: Sequence[Job]) -> set[str]:
    """Names of the jobs that no other network, baselines included, beats in both mIoU and latency."""
    shown = _measured_by(LATENCY, networks(jobs))
    return {shown[at][0].job for at in front([point for _, point in shown])} - {""}


def _measured_by(figure: Figure, shown: Sequence[Network]) -> list[tuple[Network, tuple[float, float]]]:
    pairs = [(network, figure.value(network.measured), MIOU.value(network.measured)) for network in shown]
    return [(network, (cost, miou)) for network, cost, miou in pairs if cost is not None and miou is not None]


def scatter(figure: Figure, shown: Sequence[Network]) -> Chart | None:
    """mIoU against one cost, with the front as a staircase."""
    measured = _measured_by(figure, shown)
    if not measured:
        return None
    label, unit = AXES[figure]
    points = [(cost * unit, miou) for _, (cost, miou) in measured]
    best = front(points)
    dots = []
    for at, ((network, _), point) in enumerate(zip(measured, points, strict=True)):
        kind = "base" if not network.job else "comp" if at in best else "beaten"
        title = f"{network.title}: mIoU {MIOU.of(network.measured)}, {figure.name} {figure.of(network.measured)}"
        dots.append(Dot(point, kind, title, network.label))
    staircase = Curve([points[at] for at in best], "front", "Pareto front", steps=True)
    return chart(f"mIoU against {figure.name}", label, "mIoU", [staircase], dots)


def job_row(job: Job) -> dict[str, Any]:
    """The figures of one job as they are written, and where its page is."""
    shown = (MIOU, LATENCY, FLOPS, figures.PARAMS, SIZE)
    cells = (
        [] if job.report is None else [(f.of(job.report["compressed"]), f.change(job.report["change"])) for f in shown]
    )
    speed = figures.speed(job.report) if job.report else None
    return {
        "job": job,
        "cells": cells,
        "engine": job.report["compressed"]["engine"] if job.report else "",
        "speed": speed,
    }


def class_table(done: Sequence[Job]) -> dict[str, Any] | None:
    """IoU of each class in each job, beside the baseline's, where all jobs have the same classes."""
    jobs = [job for job in done if job.report and job.report["compressed"]["class_iou"]]
    if not jobs or len({tuple(class_names(job.report)) for job in jobs if job.report}) > 1:
        return None
    first: Any = jobs[0].report
    before = first["baseline"]["class_iou"] or []
    columns = [job.report["compressed"]["class_iou"] for job in jobs if job.report]
    rows = []
    for at, name in enumerate(class_names(first)):
        base = before[at] if at < len(before) else None
        cells = [(column[at], None if None in (column[at], base) else column[at] - base) for column in columns]
        rows.append({"name": name, "base": base, "cells": cells})
    return {"jobs": jobs, "rows": rows, "one_baseline": len({j.report["model"] for j in jobs if j.report}) == 1}


def sensitivities(done: Sequence[Job]) -> list[tuple[str, Mapping[str, Any]]]:
    """One for each analysis, named by the network that it is of."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for job in done:
        report: Any = job.report
        path = artifacts.folder(report, "sensitivity")
        if path is None or str(path) in found or len(found) == MOST_CHARTS:
            continue
        drawn = sensitivity([artifacts.uncounted(group) for group in artifacts.groups(report)])
        if drawn is not None:
            found[str(path)] = (report["model"], drawn)
    return list(found.values())


def strips(done: Sequence[Job], best: set[str]) -> list[dict[str, Any]]:
    """For each image that all jobs drew: image, label, baseline, and the networks of the front."""
    chosen = [job for job in done if job.name in best] or list(done)
    drawn = [(job, dict(_even_pictures(job))) for job in chosen][:MOST_PICTURED]
    drawn = [(job, pictures) for job, pictures in drawn if pictures]
    if not drawn:
        return []
    first = drawn[0][1]
    strips = []
    for name in first:
        tiles: list[tuple[str, Path]] = [
            (kind, first[name][kind]) for kind in ("image", "label", "baseline") if kind in first[name]
        ]
        for job, pictures in drawn:
            if name in pictures:
                title = " ".join(job.own) or f"job {job.name}"
                tiles += [(title, pictures[name]["compressed"]), (f"{title}: diff", pictures[name]["difference"])]
        strips.append({"name": name, "tiles": [(title, embedded(file)) for title, file in tiles]})
    return strips


def _even_pictures(job: Job) -> Iterator[tuple[str, dict[str, Path]]]:
    report: Any = job.report
    found, folder = artifacts.read(report, "pictures", PICTURES), artifacts.folder(report, "pictures")
    if found is not None and folder is not None:
        for image in found["images"]:
            if image["chosen"] == "evenly":
                yield image["name"], {kind: folder / file for kind, file in image["files"].items()}
