"""The sections of a page, each worked out from report.json and the artifacts that are still there; None or empty where
there is nothing to show.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.errors import UserError
from segslim.reporting import metrics
from segslim.reporting.charts import Chart, Curve, Dot, chart, strip_chart
from segslim.reporting.images import embed, embed_downsized
from segslim.reporting.metrics import Report
from segslim.reporting.report import (
    GroupSummary,
    TrainingCurve,
    artifact_folder,
    read_artifact,
)

IMAGES = "images.npz"  # of the stage evaluate
MOST_CLASSES = 25  # of a confusion matrix that can be read
MARKED = 3  # groups marked among the most sensitive, and as many among the least
POINTS = 80  # of a training curve; more would not be seen
SAMPLES_WIDTH = 1100  # pixels
ROLES = {"baseline": "base", "compressed": "comp"}  # the two networks, and the CSS class of their colours


def measured_with(report: Report) -> str:
    """Engine, version, threads and precision; of both networks where they differ."""
    texts = []
    for role in ROLES:
        session = report[role].get("session")
        if session is None:
            texts.append(report[role]["engine"] or "")
            continue
        threads = f"{session['threads']} thread{'s' if session['threads'] != 1 else ''}"
        precision = report[role].get("precision") or session["precision"]
        texts.append(f"{session['name']} {session['version']}, {threads}, {precision}")
    return " → ".join(dict.fromkeys(filter(None, texts)))


def timed(report: Report) -> str:
    """When the networks were timed, within what interval they differ, and what else ran on the machine meanwhile."""
    conditions = report.get("timed")
    if not conditions:
        return ""
    parts = [f"Timed on {datetime.fromisoformat(conditions['at']):%d %B %Y, %H:%M} UTC"]
    if report["change"].get("latency_interval"):
        low, high = report["change"]["latency_interval"]
        parts[0] += f": {low:+.1%} to {high:+.1%} with 95 % confidence, by rounds in which both take turns"
    load = conditions.get("load")
    if load:
        parts.append(f"Other processes took {load['others']:.1f} of {load['cores']} cores meanwhile")
    found = conditions.get("conditions", {}).values()
    worst = {name: [one[name] for one in found if name in one] for name in ("celsius", "mhz", "most_mhz", "throttled")}
    heat = [f"up to {max(worst['celsius']):.0f} °C"] if worst["celsius"] else []
    if worst["mhz"] and worst["most_mhz"]:
        heat.append(f"at least {min(worst['mhz']):.0f} of {max(worst['most_mhz']):.0f} MHz")
    if any(worst["throttled"]):
        heat.append("held back by the system against heat")
    parts += [f"The processor: {', '.join(heat)}"] if heat else []
    parts.append("benchmark.again=true times again")
    return ". ".join(parts) + "."


def deployed(report: Report, role: str = "compressed") -> Deployment | None:
    """A network's deployment, None where it has been deleted."""
    folder = report[role].get("deployment")
    try:
        return Deployment.load(Path(folder)) if folder and Path(folder).is_dir() else None
    except UserError:
        return None


def int8_section(report: Report) -> dict[str, Any] | None:
    """Of an int8 file: {tensors, integer_nodes, floats: [{tensor, op_type, reason}], parity: in words}."""
    deployment = deployed(report)
    try:
        quantized = deployment.quantization if deployment else None
    except UserError:
        return None
    return quantized and {**quantized, "parity": parity_text(report.get("parity"))}


def confusion_table(report: Report) -> dict[str, Any] | None:
    """Of each class's labelled pixels the share that each class is predicted at, by the compressed network."""
    folder = artifact_folder(report, "metrics")
    names = class_names(report)
    if folder is None or not (folder / IMAGES).exists() or len(names) > MOST_CLASSES:
        return None
    with np.load(folder / IMAGES) as file:
        counts = file["confusion"] if "confusion" in file else np.zeros((0, 0), np.int64)
    if len(counts) != len(names):
        return None
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [
        (name, [float(share) for share in row], int(count.sum()))
        for name, row, count in zip(names, shares, counts, strict=True)
    ]
    return {"names": names, "rows": rows}


def layer_costs(report: Report) -> dict[str, Any] | None:
    """{rows: [(layer, FLOPs before and after, milliseconds before and after)], most, timed}: what each layer costs, in
    the order in which they run, and behind them the operators that were timed and have no weights.
    """
    deployments = [deployed(report, role) for role in ROLES]
    try:
        flops = [one.cost.layers if one else {} for one in deployments]
    except UserError:  # nothing was counted at any size
        return None
    times = (read_artifact(report, "latency") or {}).get("layers", {})
    took = [times.get(role) or times.get("compressed", {}) for role in ROLES]  # a network alone is timed once
    names = dict.fromkeys([*flops[0], *took[0], *took[1]])
    rows = [(name.removesuffix(".w_0"), *(of.get(name, 0) for of in (*flops, *took))) for name in names]
    if not all(flops):
        return None
    return {"rows": rows, "most": max(flops[0].values()), "timed": any(took)}


def css_colour(colour: Sequence[int]) -> str:
    red, green, blue = (int(level) for level in colour)
    return f"rgb({red},{green},{blue})"


def class_names(report: Report) -> list[str]:
    """Numbers where the data set does not name its classes."""
    count = len(class_ious(report["compressed"]) or class_ious(report["baseline"]))
    return list(report.get("classes") or map(str, range(count)))


def class_ious(network: Mapping[str, Any]) -> Sequence[Any]:
    """Against the labels, or without labels against the dense network's predictions; () where not measured."""
    return (network.get("agreement") or network)["class_iou"] or ()


def class_rows(report: Report) -> list[dict[str, Any]]:
    """One a class: {name, colour, share of the labelled validation pixels, before, after}, values in 0..1 or None."""
    summary = dataset_contents(report)
    pixels = summary["val"]["class_pixels"] if summary else []
    names, colours = class_names(report), report.get("colours") or []
    ious = [class_ious(report[role]) for role in ROLES]
    rows = []
    for name, colour, count, before, after in zip_longest(names, colours, pixels, *ious):
        if name is None:
            continue
        share = count / sum(pixels) if count is not None and sum(pixels) else None
        shown = None if colour is None else css_colour(colour)
        rows.append({"name": name, "colour": shown, "share": share, "before": before, "after": after})
    return rows if any(ious) else []


def sensitivity(groups: Sequence[GroupSummary]) -> dict[str, Any] | None:
    """The chart of all groups' curves, where they were measured, and the groups with the channels that they kept."""
    measured, counts = [g for g in groups if g.losses], [g.channels for g in groups if g.channels]
    if not measured and not counts:
        return None
    marked = {group.name: f"warm{n}" for n, group in enumerate(measured[:MARKED])}
    least = measured[::-1][: min(MARKED, len(measured) - len(marked))]
    marked |= {group.name: f"cool{n}" for n, group in enumerate(least)}
    drawn: Chart | None = None
    if measured:
        curves = [
            Curve(
                [(0.0, 0.0), *((100 * fraction, loss) for fraction, loss in group.losses)],
                marked.get(group.name, "muted"),
                group.name,
            )
            for group in sorted(measured, key=lambda group: group.name in marked)  # the marked ones last: on top
        ]
        title = "Loss of mIoU by the share of a group's channels removed"
        drawn = chart(title, "channels removed (%)", "loss of mIoU", curves)
    most = max(counts, default=0)
    if counts:  # what was pruned comes first, and what kept all last
        groups = sorted(groups, key=lambda group: (group.kept or 0) / group.channels if group.channels else 1.0)
    return {"chart": drawn, "groups": groups, "marked": marked, "most": most, "counted": bool(counts)}


def latency_chart(report: Report) -> Chart | None:
    """Every timed run of both networks, or of the dense one alone."""
    measured = read_artifact(report, "latency")
    if not measured:
        return None
    dense = metrics.is_dense(report)
    rows = [
        ("dense" if dense else role, kind, measured[role]["samples"], measured[role]["quickest"])
        for role, kind in ROLES.items()
        if measured.get(role, {}).get("samples") and not (dense and role == "baseline")
    ]
    return strip_chart("Latency of every timed run", "time for one image (ms)", rows) if rows else None


def training_charts(curve: TrainingCurve) -> dict[str, Any]:
    """Loss and mIoU by iteration."""
    charts = []
    if len(curve.loss) > 1:
        line = [Curve(smoothed(curve.loss), "comp", "loss")]
        charts.append(chart(f"Loss of {curve.stage}", "iteration", "loss", line, from_zero=True))
    if len(curve.miou) > 1:  # one evaluation is a figure and no curve
        dots = [Dot(point, "comp", f"mIoU {point[1]:.4f} at iteration {point[0]:.0f}") for point in curve.miou]
        line = [Curve(curve.miou, "comp", "mIoU")]
        charts.append(chart(f"mIoU of {curve.stage}", "iteration", "mIoU", line, dots, from_zero=True))
    return {"stage": curve.stage, "charts": charts}


def smoothed(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means over equally many neighbours each."""
    span = math.ceil(len(points) / most)
    chunks = [points[at : at + span] for at in range(0, len(points), span)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def dataset_contents(report: Report) -> Mapping[str, Any] | None:
    """What is in each split, None where the data set's artifact has been deleted."""
    folder = artifact_folder(report, "dataset")
    return None if folder is None else Dataset.load(folder).summary


def dataset_summary(report: Report) -> dict[str, Any] | None:
    """Counts and sizes of each split, and the picture of samples with their labels."""
    summary, folder = dataset_contents(report), artifact_folder(report, "dataset")
    if summary is None or folder is None:
        return None
    splits = []
    for split, found in summary.items():
        sizes = [f"{size['width']} × {size['height']}" for size in found["sizes"]]
        text = ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
        ignored = found["ignored_pixels"] / max(sum(found["class_pixels"]) + found["ignored_pixels"], 1)
        splits.append({"name": split, "pairs": found["pairs"], "sizes": text, "ignored": ignored})
    samples = folder / "samples.png"
    return {"splits": splits, "samples": embed_downsized(samples, SAMPLES_WIDTH) if samples.exists() else None}


def predictions(report: Report) -> dict[str, Any] | None:
    """The images that the stage preview drew, with the files embedded."""
    found, folder = read_artifact(report, "pictures"), artifact_folder(report, "pictures")
    if found is None or folder is None:
        return None
    images = [
        {**image, "files": {kind: embed(folder / file) for kind, file in image["files"].items()}}
        for image in found["images"]
    ]
    return {**found, "images": images}


def facts(report: Report) -> list[tuple[str, str]]:
    """Under which conditions the numbers were measured: machine, versions, seed."""
    machine = report.get("machine", {})
    values = {
        "host": machine.get("host"),
        "board": machine.get("board"),
        "processor": machine.get("processor"),
        "cores": machine.get("cores"),
        "system": machine.get("system"),
        "engine": measured_with(report),
        "int8 parity": parity_text(report.get("parity")),
        "image size": " × ".join(map(str, report["size"])) if report.get("size") else None,
        "seed": report["seed"],
        "python": machine.get("python"),
        **report.get("packages", {}),
    }
    return [(name, str(value)) for name, value in values.items() if value not in (None, "")]


def parity_text(parity: Mapping[str, Any] | None) -> str | None:
    """How far an int8 file is from the network that it was made of."""
    if not parity:
        return None
    difference = parity["miou_deployed"] - parity["miou_reference"]
    kernels = parity["miou_deployed"] - parity["miou_float"]
    equal = f"{parity['equal_pixels']:.2%} of the pixels equal"
    return (
        f"mIoU {difference:+.4f} from the {parity['reference']} network, {equal}; {kernels:+.4f} from the same file"
        f" computed in float; on {parity['images']} images"
    )
