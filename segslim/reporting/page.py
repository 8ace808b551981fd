"""report.html of one run: what the page says, worked out from report.json and the artifacts that are still there."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment, one_line
from segslim.errors import UserError
from segslim.files import read_plain
from segslim.reporting import metrics
from segslim.reporting.charts import Chart, Curve, Dot, chart, strip_chart
from segslim.reporting.front import page_context
from segslim.reporting.images import KINDS, embed, embed_downsized
from segslim.reporting.jobs import hydra_section, run_command
from segslim.reporting.metrics import AGREEMENT, Report, key_metrics, quality
from segslim.reporting.report import (
    GroupSummary,
    TrainingCurve,
    artifact_folder,
    channel_groups,
    deleted_stages,
    read_artifact,
    training_curves,
    write_atomically,
)

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
IMAGES = "images.npz"  # of the stage evaluate
MOST_CLASSES = 25  # of a confusion matrix that can be read
MARKED = 3  # groups marked among the most sensitive, and as many among the least
POINTS = 80  # of a training curve; more would not be seen
SAMPLES_WIDTH = 1100  # pixels
ROLES = {"baseline": "base", "compressed": "comp"}  # the two networks, and the CSS class of their colours


def write_page(folder: Path) -> Path:
    """Writes report.html beside the report.json in `folder`, and returns its path. Raises UserError where there is
    none, or no page can be drawn of it and the artifacts that it names: they may be anybody's.
    """
    file = folder / "report.json"
    try:
        report = read_plain(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    with drawn_from(file):
        known = context(report, hydra_section(folder / ".hydra" / "hydra.yaml"))
        text = render("report.html", {**known, "folder": os.path.relpath(folder)})
    page = folder / "report.html"
    write_atomically(text, page)
    return page


@contextmanager
def drawn_from(source: Path) -> Iterator[None]:
    """Within it, whatever is missing or of another kind than a run writes it is a UserError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"{source}: no page can be drawn of it ({reason}); type the command of the run again"
        ) from error


def write_page_after_run(folder: Path) -> None:
    """The same at the end of a run. Its numbers are safe in report.json, so a page that fails is only a warning."""
    try:
        write_page(folder)
    except Exception as error:
        log.warning("report.html could not be written: %s: %s", type(error).__name__, error)
        log.debug("report.html", exc_info=True)


def render(template: str, values: Mapping[str, Any]) -> str:
    """One HTML file that needs nothing beside it. Every value is escaped: names and error texts are the user's."""
    import jinja2  # a tenth of a second that --help does not have

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    return environment.get_template(template).render(style=style, script=script, **values)


def context(report: Report, hydra: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """All that the template needs; `hydra` as in `run_command`."""
    tone, first, second = headline(report)
    return {
        **shared_context(report),
        "title": f"{report['model']} {report['strategy']} {report['dataset']}",
        "report": report,
        "tone": tone,
        "headline": first,
        "summary": second,
        "advice": report.get("advice", []),
        "warnings": report.get("warnings", []),
        "front": page_context(report),
        "cards": cards(report),
        "measured_with": measured_with(report),
        "timed": timed(report),
        "int8": int8_section(report),
        "confusion": confusion_table(report),
        "costs": layer_costs(report),
        "classes": class_rows(report),
        "sensitivity": sensitivity(channel_groups(report)),
        "reconstruction": report.get("reconstruction", []),
        "latency": latency_chart(report),
        "trainings": [training_charts(curve) for curve in training_curves(report)],
        "dataset": dataset_summary(report),
        "predictions": predictions(report),
        # None where an early report does not say what was typed
        "command": None if report.get("overrides") is None else run_command(report["overrides"], hydra),
        "deleted": deleted_stages(report),
    }


def shared_context(report: Report | None) -> dict[str, Any]:
    """What the page of a run and that of a sweep both need; `report` is the latest of a sweep, None where none is."""
    made = report.get("made") if report else None
    colours = (report.get("colours") if report else None) or ()
    names = class_names(report) if report else []
    return {
        "made": f"{datetime.fromisoformat(made):%d %B %Y, %H:%M} UTC" if made else "",
        "unlabelled": report is not None and quality(report) is AGREEMENT,
        "legend": [(name, css_colour(colour)) for name, colour in zip(names, colours, strict=False)],
        "kinds": {kind: css_colour(colour) for kind, colour in list(KINDS.items())[1:]},
        "facts": facts(report) if report else [],
    }


def headline(report: Report) -> tuple[str, str, str]:
    """(good, bad or plain; the first line; the second). The first says whether it became faster."""
    after, before, change = report["compressed"], report["baseline"], report["change"]
    judged = quality(report)
    if metrics.is_dense(report):
        second = "" if judged.value(after) is None else f"{judged.name} {judged.text(after)}"
        if metrics.blindness(report):
            return "bad", sentence_case(metrics.blindness(report)), second
        return "plain", f"{report['model']}, dense: nothing was compressed", second
    parts = [f"{judged.name} {judged.text(after)}"] if judged is AGREEMENT else []
    if change["miou"] is not None:
        parts.append(f"mIoU {before['miou']:.4f} → {after['miou']:.4f} ({metrics.MIOU.change_text(change)})")
    if change["flops"] is not None:
        fewer = f"{abs(change['flops']):.1%} {'fewer' if change['flops'] <= 0 else 'more'} FLOPs"
        parts.append(fewer if metrics.FLOPS.change_text(change) != "0" else "the same FLOPs")
    if change["size"] is not None:
        sizes = f"{metrics.SIZE.text(before)} → {metrics.SIZE.text(after)}"
        parts.append(f"{abs(change['size']):.1%} {'smaller' if change['size'] <= 0 else 'larger'} ({sizes})")
    verdict = metrics.verdict(report)
    if not verdict:
        return "plain", f"{report['model']}, {report['strategy']}: the latency was not measured", ", ".join(parts)
    if metrics.blindness(report):
        return "bad", sentence_case(metrics.blindness(report)), f"{sentence_case(verdict)}; {', '.join(parts)}"
    tone = {"faster": "good", "slower": "bad"}.get(metrics.speed(report) or "", "plain")
    return tone, sentence_case(verdict), ", ".join(parts)


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def cards(report: Report) -> list[dict[str, Any]]:
    """The key metrics: {name, before, after, change, good (None where a change is neither good nor bad)}."""
    found = []
    for metric in key_metrics(report):
        value = report["change"].get(metric.key)
        good = None if not value else (value > 0) == (metric.key in ("miou", "agreement"))
        if metric.key == "latency" and metrics.speed(report) == "unclear":
            good = None
        found.append(
            {
                "name": metric.name,
                "before": metric.text(report["baseline"]),
                "after": metric.text(report["compressed"]),
                "change": metric.change_text(report["change"]),
                "good": good,
            }
        )
    return found


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
    """{rows: [(layer, FLOPs before and after)], most}: what each layer costs, in the order in which they run."""
    deployments = [deployed(report, role) for role in ROLES]
    try:
        before, after = (one.cost.layers if one else {} for one in deployments)
    except UserError:  # nothing was counted at any size
        return None
    rows = [(name.removesuffix(".w_0"), flops, after.get(name, 0)) for name, flops in before.items()]
    return {"rows": rows, "most": max(flops for _, flops, _ in rows)} if rows and after else None


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
        ("dense" if dense else role, kind, measured[role]["samples"])
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
