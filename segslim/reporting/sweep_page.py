"""sweep.html: mIoU against what each network costs, every job's metrics, and the same pictures from all of them."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from segslim.reporting import metrics
from segslim.reporting.charts import Chart, Curve, Dot, chart
from segslim.reporting.front import masks_page, point_as_network
from segslim.reporting.images import embed
from segslim.reporting.jobs import Job, common_overrides, run_command, search_course, sweep_settings
from segslim.reporting.metrics import FLOPS, LATENCY, SIZE, Metric, Report, key_metrics, quality, quality_change
from segslim.reporting.page import shared_context
from segslim.reporting.report import artifact_folder, channel_groups, deleted_stages, read_artifact
from segslim.reporting.sections import class_ious, class_names, sensitivity

MOST_PICTURED = 6  # jobs, of those on the front, whose predictions are shown
MOST_COLUMNS = 12  # jobs in the table of classes, those on the front first
MOST_CHARTS = 4  # of sensitivity, one for each analysis
FRONT_COLOURS = ("warm0", "cool1", "cool2", "warm2", "warm1")  # none is that of the front of all
AXES = {  # metric: (label, factor)
    LATENCY: ("latency (ms)", 1.0),
    FLOPS: ("FLOPs (millions of MACs)", 1e-6),
    SIZE: ("size (MB)", 1e-6),
}


@dataclass(frozen=True)
class ChartedNetwork:
    """A point of the charts: a job's network, or a baseline that jobs have in common."""

    job: str  # "" for a baseline
    label: str
    title: str
    measured: metrics.Network
    judged: Metric  # mIoU, or that against the dense network
    of_front: str = ""  # the network whose front it is a point of, where it is not what the job deployed
    link: str = ""  # the page that shows it, from the sweep's folder
    beside: bool = False  # whether it was timed beside other jobs

    @property
    def quality(self) -> float | None:
        return self.judged.value(self.measured)


def context(folder: Path, jobs: Sequence[Job]) -> dict[str, Any]:
    """All that the template needs."""
    done = [job for job in jobs if job.report is not None]
    last = max((job.report for job in done if job.report), key=lambda r: r.get("made", ""), default=None)
    tone, first, second = headline(jobs)
    best, networks = on_front(jobs), charted_networks(jobs)
    fronts = front_colours(networks)
    return {
        **shared_context(last),
        "title": f"sweep {folder.resolve().name}",
        "folder": os.path.relpath(folder),
        "tone": tone,
        "headline": first,
        "summary": second,
        "rows": [job_row(job, comparable(jobs)) for job in jobs],
        "mixed": len(methods(jobs)) > 1,
        "best": best,
        "beside": [job.name for job in done if job.beside],
        "charts": [drawn for metric in AXES if (drawn := scatter(metric, networks)) is not None],
        "courses": courses(search_course(folder)),
        "fronts": fronts,
        "best_by_latency": best_by_latency(networks) if fronts else [],
        "classes": class_table(done, best),
        "sensitivities": sensitivities(done),
        "predictions": predictions(done, best),
        "command": run_command(common_overrides(jobs), sweep_settings(folder)),
        "last": last,
        "quality": quality(last).name,
        "deleted": [job.name for job in done if job.report and deleted_stages(job.report)],
    }


def headline(jobs: Sequence[Job]) -> tuple[str, str, str]:
    """(good, bad or plain; how many became faster; how many there are, and the fastest)."""
    statuses = ("done", "failed", "unfinished", "not begun")
    counts = {status: sum(job.status == status for job in jobs) for status in statuses}
    counted = f"{len(jobs)} jobs: " + ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    reports = {job: job.report for job in jobs if job.report is not None}
    speeds = {
        job.name: speed
        for job, report in reports.items()
        if not job.beside and (speed := metrics.speed(report)) is not None
    }
    if not speeds and any(job.beside for job in jobs):
        return "plain", "Every job was timed while others ran on its machine", counted
    if not speeds:
        return "plain", f"No latency to compare yet: {counts['done']} of {len(jobs)} jobs are done", counted
    fastest = min((job for job in reports if job.name in speeds), key=lambda job: reports[job]["change"]["latency"])
    change = reports[fastest]["change"]
    second = f"{counted}. Least time: {' '.join(fastest.own) or 'job ' + fastest.name}: {change['latency']:+.1%} time"
    lost = quality_change(reports[fastest])
    second += f", {lost}." if lost else "."
    blind = {job.name for job, report in reports.items() if metrics.blindness(report)}
    faster = sum(speed == "faster" for name, speed in speeds.items() if name not in blind)
    if len(blind) == len(reports):
        return "bad", "Every network recognizes one class only: train for longer (train.iters)", second
    second += f" Of the networks, {len(blind)} recognize one class only." if blind else ""
    if not faster:
        return "bad", f"None of {len(speeds)} compressed networks is faster than its baseline", second
    return "good", f"{faster} of {len(speeds)} compressed networks are faster than their baseline", second


def charted_networks(jobs: Sequence[Job]) -> list[ChartedNetwork]:
    """Every baseline once, then every job that is done and compressed something.

    A machine's speed drifts from job to job, but a job times its baseline in turn with its own network. So latencies
    are scaled as if each job's baseline had taken the median over all jobs that timed this baseline in the same way.
    """

    def baseline_key(report: Report) -> Any:
        before = report["baseline"]
        return before.get("deployment") or (report["model"], before["flops"], before["size_bytes"])

    def timing_key(report: Report) -> Any:
        machine = report.get("machine", {})
        session = str(report["baseline"].get("session"))
        return baseline_key(report), session, machine.get("processor"), machine.get("cores")

    def scaled(network: metrics.Network, scale: float) -> metrics.Network:
        own = metrics.latency_of(network)
        return network if own is None else {**network, "latency_ms": {**network["latency_ms"], "quickest": own * scale}}

    timed: dict[Any, list[float]] = {}
    for job in jobs:
        own = metrics.latency_of(job.report["baseline"]) if job.report else None
        if job.report and own is not None and not job.beside:
            timed.setdefault(timing_key(job.report), []).append(own)
    baselines: dict[Any, ChartedNetwork] = {}
    compressed = []
    for job in sorted(jobs, key=lambda job: job.beside):  # a baseline is that of a job alone, where there is one
        if job.report is None:
            continue
        before, name, key = job.report["baseline"], job.report["model"], baseline_key(job.report)
        judged = quality(job.report)
        own = metrics.latency_of(before)
        scale = median(timed.get(timing_key(job.report), [own])) / own if own else 1.0
        label = "baseline" if not baselines or key in baselines else f"baseline {name}"
        dense = ChartedNetwork("", label, f"baseline of {name}", scaled(before, scale), judged, beside=job.beside)
        baselines.setdefault(key, dense)
        if not metrics.is_dense(job.report):
            measured = scaled(job.report["compressed"], scale)
            if own:  # by rounds in which both networks took turns
                usual = own * scale * (1 + job.report["change"]["latency"])
                measured = {**measured, "latency_ms": {**measured["latency_ms"], "quickest": usual}}
            title = f"job {job.name}: {' '.join(job.own)}"
            link = quote(job.page or "")
            compressed.append(ChartedNetwork(job.name, job.label, title, measured, judged, "", link, job.beside))
        front = job.report.get("front") or {"points": []}
        for point in front["points"]:
            if point["name"] not in ("dense", front["chosen"]):
                network = point_as_network(point, (own or 0.0) * scale)
                title = f"{name} {point['name']}"
                link = f"{quote(job.name)}/{masks_page(point)}"
                compressed.append(ChartedNetwork(job.name, "", title, network, judged, name, link, job.beside))
    return [*baselines.values(), *compressed]


def on_front(jobs: Sequence[Job]) -> set[str]:
    """Names of the jobs that no other network, baselines included, beats in both mIoU and latency."""
    points = _points(LATENCY, charted_networks(jobs))
    front = metrics.pareto_front([point for _, point in points])
    return {points[position][0].job for position in front if not points[position][0].of_front} - {""}


def _points(metric: Metric, networks: Sequence[ChartedNetwork]) -> list[tuple[ChartedNetwork, tuple[float, float]]]:
    """Each network with (cost, mIoU), where both were measured; by latency without those timed beside other jobs."""
    values = [
        (network, metric.value(network.measured), network.quality)
        for network in networks
        if not (network.beside and metric is LATENCY)
    ]
    return [(network, (cost, miou)) for network, cost, miou in values if cost is not None and miou is not None]


def scatter(metric: Metric, networks: Sequence[ChartedNetwork]) -> Chart | None:
    """mIoU against one cost, with the front as a staircase."""
    measured = _points(metric, networks)
    if not measured:
        return None
    label, factor = AXES[metric]
    points = [(cost * factor, miou) for _, (cost, miou) in measured]
    front = metrics.pareto_front(points)
    dots, colours = [], front_colours(networks)
    for position, ((network, _), point) in enumerate(zip(measured, points, strict=True)):
        kind = "base" if not network.job else "comp" if position in front else "beaten"
        if kind != "base" and network.of_front:
            kind = colours[network.of_front] + ("" if position in front else " beaten")
        judged = f"{network.judged.name} {network.judged.text(network.measured)}"
        title = f"{network.title}: {judged}, {metric.name} {metric.text(network.measured)}"
        dots.append(Dot(point, kind, title, network.label, network.link))
    curves = [Curve([points[position] for position in front], "front", "Pareto front", steps=True)]
    for name, colour in colours.items():
        own = [point for (network, _), point in zip(measured, points, strict=True) if network.of_front == name]
        line = [own[position] for position in metrics.pareto_front(own)]
        curves.append(Curve(line, colour, f"front of {name}"))
    dots.sort(key=lambda dot: "beaten" not in dot.kind)  # those on the front are drawn over the others
    return chart(f"mIoU against {metric.name}", label, networks[0].judged.name, curves, dots)


def courses(searched: Mapping[str, Any] | None) -> list[Chart]:
    """What each trial of a search came to, and the best so far: a chart for each figure."""
    if searched is None:
        return []
    drawn = []
    for at, direction in enumerate(searched["directions"]):
        values = [values[at] for values in searched["values"] if at < len(values)]
        if not values:
            continue
        name = searched["figures"][at] if at < len(searched["figures"]) else f"figure {at + 1}"
        best = list(accumulate(values, min if direction == "minimize" else max))
        curve = Curve([(float(n), one) for n, one in enumerate(best, 1)], "front", "the best so far", steps=True)
        dots = [Dot((float(n), one), "comp", f"trial {n}: {one:.4g}") for n, one in enumerate(values, 1)]
        drawn.append(chart(name, "trial", name, [curve], dots))
    return drawn


def front_colours(networks: Sequence[ChartedNetwork]) -> dict[str, str]:
    """The CSS class of each network of which there is a front."""
    names = dict.fromkeys(network.of_front for network in networks if network.of_front)
    return {name: FRONT_COLOURS[number % len(FRONT_COLOURS)] for number, name in enumerate(names)}


def best_by_latency(networks: Sequence[ChartedNetwork]) -> list[dict[str, Any]]:
    """The fastest network, and then each that is better than all faster ones: what is best at a latency."""
    points = _points(LATENCY, networks)
    return [
        {
            **{"title": points[at][0].title, "link": points[at][0].link, "quality": points[at][1][1]},
            **{metric.name: metric.text(points[at][0].measured) for metric in AXES},
        }
        for at in metrics.pareto_front([point for _, point in points])
    ]


def comparable(jobs: Sequence[Job]) -> dict[str, metrics.Network]:
    """What each job's network measures, by the job's name, its latency as if all had been timed at one time."""
    return {network.job: network.measured for network in charted_networks(jobs) if network.job and not network.of_front}


def methods(jobs: Sequence[Job]) -> set[str]:
    """What the jobs of a sweep pruned by, as `auto` was decided for each."""
    return {job.report["pruned_by"] for job in jobs if job.report and job.report.get("pruned_by")}


def job_row(job: Job, measured: Mapping[str, metrics.Network]) -> dict[str, Any]:
    """{job, cells: (value, change) of each key metric, engine, speed}; without cells where it is not done.

    measured: as of `comparable`.
    """
    if job.report is None:
        return {"job": job, "cells": [], "engine": "", "speed": None}
    after, change = measured.get(job.name, job.report["compressed"]), job.report["change"]
    cells = [(metric.text(after), metric.change_text(change)) for metric in key_metrics(job.report)]
    speed = None if metrics.blindness(job.report) else metrics.speed(job.report)
    return {"job": job, "cells": cells, "engine": after["engine"], "speed": speed}


def class_table(done: Sequence[Job], best: Collection[str]) -> dict[str, Any] | None:
    """IoU of each class in each job, beside the baseline's, where all jobs have the same classes; in as many jobs as
    there is room for, those named in `best` first.
    """
    reports = {job: job.report for job in done if job.report and class_ious(job.report["compressed"])}
    if len({tuple(class_names(report)) for report in reports.values()}) != 1:
        return None
    left_out = len(reports) - MOST_COLUMNS
    shown = sorted(reports, key=lambda job: job.name not in best)[:MOST_COLUMNS]
    reports = {job: report for job, report in reports.items() if job in shown}
    first = next(iter(reports.values()))
    before = class_ious(first["baseline"])
    columns = [class_ious(report["compressed"]) for report in reports.values()]
    rows = []
    for at, name in enumerate(class_names(first)):
        base = before[at] if at < len(before) else None
        cells = [(column[at], None if None in (column[at], base) else column[at] - base) for column in columns]
        rows.append({"name": name, "base": base, "cells": cells})
    one_baseline = len({report["model"] for report in reports.values()}) == 1
    return {"jobs": list(reports), "rows": rows, "one_baseline": one_baseline, "left_out": max(left_out, 0)}


def sensitivities(done: Sequence[Job]) -> list[tuple[str, Mapping[str, Any]]]:
    """(model, its chart and groups), one for each analysis. Without the channels kept, which differ from job to job."""
    found: dict[Path, tuple[str, Mapping[str, Any]]] = {}
    for job in done:
        report: Any = job.report
        path = artifact_folder(report, "sensitivity")
        if path is None or path in found or len(found) == MOST_CHARTS:
            continue
        drawn = sensitivity([group.without_counts() for group in channel_groups(report)])
        if drawn is not None:
            found[path] = (report["model"], drawn)
    return list(found.values())


def predictions(done: Sequence[Job], best: set[str]) -> list[dict[str, Any]]:
    """For each image that the jobs drew in common: image, label, baseline, and the networks of the front."""
    chosen = [job for job in done if job.name in best] or list(done)
    drawn = [(job, files) for job in chosen[:MOST_PICTURED] if (files := _common_images(job))]
    if not drawn:
        return []
    rows = []
    for name, first in drawn[0][1].items():
        tiles: list[tuple[str, Path]] = [
            (kind, first[kind]) for kind in ("image", "label", "baseline") if kind in first
        ]
        for job, files in drawn:
            if name in files:
                title = " ".join(job.own) or f"job {job.name}"
                tiles += [(title, files[name]["compressed"]), (f"{title}: diff", files[name]["difference"])]
        rows.append({"name": name, "tiles": [(title, embed(file)) for title, file in tiles]})
    return rows


def _common_images(job: Job) -> dict[str, dict[str, Path]]:
    """{image: {kind: file}} of those that the stage preview shows in every run on a data set."""
    report: Any = job.report
    found, folder = read_artifact(report, "pictures"), artifact_folder(report, "pictures")
    if found is None or folder is None:
        return {}
    images = [image for image in found["images"] if image["chosen"] == "evenly"]
    return {image["name"]: {kind: folder / file for kind, file in image["files"].items()} for image in images}
