"""report.html of one run: what the page says, worked out from report.json and the artifacts that are still there."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from segslim.errors import UserError
from segslim.records import LATENCY, PICTURES, SUMMARY
from segslim.reporting import artifacts, figures
from segslim.reporting.artifacts import Group, Report, TrainingCurve
from segslim.reporting.charts import Chart, Curve, Dot, chart, strips
from segslim.reporting.difference import KINDS
from segslim.reporting.figures import KEY_FIGURES
from segslim.reporting.images import downsized, embedded
from segslim.reporting.jobs import run_command
from segslim.reporting.render import render, write_whole

log = logging.getLogger(__name__)

MARKED = 3  # groups marked among the most sensitive, and as many among the least
POINTS = 80  # of a training curve; more would not be seen
SHEET_WIDTH = 1100  # pixels
LANES = {"baseline": "base", "compressed": "comp"}  # and the CSS class of its colour


def write_page(folder: Path) -> Path:
    """Writes report.html beside the report.json in `folder`, and returns its path. Raises UserError without one."""
    file = folder / "report.json"
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    page = folder / "report.html"
    write_whole(render("report.html", context(report)), page)
    return page


def write_page_after_run(folder: Path) -> None:
    """The same at the end of a run, its figures safe in report.json: a page that fails is a warning, no more."""
    try:
        write_page(folder)
    except Exception as error:
        log.warning("report.html could not be written: %s: %s", type(error).__name__, error)
        log.debug("report.html", exc_info=True)


def context(report: Report) -> dict[str, Any]:
    """All that the template needs."""
    tone, first, second = headline(report)
    return {
        "title": f"{report['model']} {report['strategy']} {report['dataset']}",
        "report": report,
        "tone": tone,
        "headline": first,
        "summary": second,
        "advice": report.get("advice", []),
        "made": made(report),
        "cards": cards(report),
        "measured_with": measured_with(report),
        "classes": class_rows(report),
        "sensitivity": sensitivity(artifacts.groups(report)),
        "latency": latency_chart(report),
        "trainings": [training_charts(curve) for curve in artifacts.curves(report)],
        "dataset": dataset_sheet(report),
        "pictures": pictures(report),
        "legend": class_legend(report),
        "kinds": {kind: rgb(colour) for kind, colour in list(KINDS.items())[1:]},
        "command": command(report.get("overrides")),
        "facts": facts(report),
        "gone": artifacts.gone(report),
    }


def headline(report: Report) -> tuple[str, str, str]:
    """(good, bad or plain; the first line; the second). The first says whether it became faster."""
    after, before, change = report["compressed"], report["baseline"], report["change"]
    name, engine = report["model"], after["engine"]
    if figures.is_dense(report):
        return "plain", f"{name}, dense: nothing was compressed", _accuracy_line(after)
    said = [
        f"mIoU {before['miou']:.4f} → {after['miou']:.4f} ({change['miou']:+.4f})"
        if change["miou"] is not None
        else "",
        f"{_less(change['flops'])} FLOPs" if change["flops"] is not None else "",
        f"{_less(change['size'])} bytes" if change["size"] is not None else "",
    ]
    second = ", ".join(filter(None, said))
    share, speed = change["latency"], figures.speed(report)
    lost = "" if change["miou"] is None else f", mIoU {change['miou']:+.4f}"
    if speed is None:
        return "plain", f"{name}, {report['strategy']}: the latency was not measured", second
    if speed == "faster":
        return "good", f"Faster on {engine}: {-share:.1%} less time for an image{lost}", second
    if speed == "unclear":
        return "bad", f"Not faster on {engine}: {share:+.1%} time is within the noise{lost}", second
    return "bad", f"Not faster on {engine}: {share:.1%} more time for an image{lost}", second


def _less(share: float) -> str:
    return f"{abs(share):.1%} {'fewer' if share <= 0 else 'more'}"


def _accuracy_line(measured: Mapping[str, Any]) -> str:
    return "" if measured["miou"] is None else f"mIoU {measured['miou']:.4f}"


def made(report: Report) -> str:
    when = report.get("made")
    return "" if not when else f"{datetime.fromisoformat(when):%d %B %Y, %H:%M} UTC"


def command(overrides: Sequence[str] | None) -> str | None:
    """The command that makes the run again; None where the report does not say what was typed."""
    return None if overrides is None else run_command(overrides)


def cards(report: Report) -> list[dict[str, Any]]:
    """The key figures: {name, before, after, change, good (None where a change is neither)}."""
    found = []
    for figure in KEY_FIGURES:
        value = report["change"].get(figure.key)
        gain = None if not value else (value > 0) == (figure.key == "miou")
        if figure.key == "latency" and figures.speed(report) == "unclear":
            gain = None
        found.append(
            {
                "name": figure.name,
                "before": figure.of(report["baseline"]),
                "after": figure.of(report["compressed"]),
                "change": figure.change(report["change"]),
                "good": gain,
            }
        )
    return found


def measured_with(report: Report) -> str:
    """Engine, version, threads and precision; of both networks where they are not the same."""
    said = []
    for lane in LANES:
        session = report[lane].get("session")
        if session is None:
            said.append(report[lane]["engine"] or "")
            continue
        threads = f"{session['threads']} thread{'s' if session['threads'] != 1 else ''}"
        precision = report[lane].get("precision") or session["precision"]
        said.append(f"{session['name']} {session['version']}, {threads}, {precision}")
    return " → ".join(dict.fromkeys(filter(None, said)))


def rgb(colour: Sequence[int]) -> str:
    red, green, blue = (int(level) for level in colour)
    return f"rgb({red},{green},{blue})"


def class_names(report: Report) -> list[str]:
    count = len(report["compressed"]["class_iou"] or report["baseline"]["class_iou"] or ())
    return list(report.get("classes") or map(str, range(count)))


def class_legend(report: Report) -> list[tuple[str, str]]:
    return [(name, rgb(colour)) for name, colour in zip(class_names(report), report.get("colours") or (), strict=False)]


def class_rows(report: Report) -> list[dict[str, Any]]:
    """One a class: {name, colour, share of the labelled validation pixels, before, after}, values in 0..1 or None."""
    summary = artifacts.read(report, "dataset", SUMMARY)
    pixels = summary["val"]["class_pixels"] if summary else []
    names, colours = class_names(report), report.get("colours") or []
    ious = [report[lane]["class_iou"] or [] for lane in LANES]
    rows = []
    for name, colour, count, before, after in zip_longest(names, colours, pixels, *ious):
        if name is None:
            continue
        share = None if count is None else count / max(sum(pixels), 1)
        shown = None if colour is None else rgb(colour)
        rows.append({"name": name, "colour": shown, "share": share, "before": before, "after": after})
    return rows if any(ious) else []


def sensitivity(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The chart of all groups' curves, where they were measured, and the groups with what they kept."""
    measured, counted = [g for g in groups if g.losses], [g.channels for g in groups if g.channels]
    if not measured and not counted:
        return None
    marked = {g.name: f"warm{n}" for n, g in enumerate(measured[:MARKED])}
    least = measured[::-1][: min(MARKED, len(measured) - len(marked))]
    marked |= {group.name: f"cool{n}" for n, group in enumerate(least)}
    return {
        "chart": _curves_of(measured, marked) if measured else None,
        "groups": groups,
        "marked": marked,
        "most": max(counted, default=0),
        "counted": bool(counted),
    }


def _curves_of(measured: Sequence[Group], marked: Mapping[str, str]) -> Chart:
    """The marked ones last, on top of the others."""
    curves = [
        Curve([(0.0, 0.0), *((100 * share, loss) for share, loss in g.losses)], marked.get(g.name, "muted"), g.name)
        for g in sorted(measured, key=lambda group: group.name in marked)
    ]
    title = "Loss of mIoU by the share of a group's channels removed"
    return chart(title, "channels removed (%)", "loss of mIoU", curves)


def latency_chart(report: Report) -> Chart | None:
    """Every timed run of both networks."""
    measured = artifacts.read(report, "latency", LATENCY)
    if not measured:
        return None
    lanes = [
        ("dense" if figures.is_dense(report) else lane, kind, measured[lane]["samples"])
        for lane, kind in LANES.items()
        if measured.get(lane, {}).get("samples") and not (figures.is_dense(report) and lane == "baseline")
    ]
    return strips("Latency of every timed run", "time for one image (ms)", lanes) if lanes else None


def training_charts(curve: TrainingCurve) -> dict[str, Any]:
    """Loss and mIoU by iteration."""
    charts = []
    if curve.loss:
        smooth = thinned(curve.loss)
        charts.append(
            chart(f"Loss of {curve.stage}", "iteration", "loss", [Curve(smooth, "comp", "loss")], from_zero=True)
        )
    if curve.miou:
        dots = [Dot(point, "comp", f"mIoU {point[1]:.4f} at iteration {point[0]:.0f}") for point in curve.miou]
        line = [Curve(curve.miou, "comp", "mIoU")]
        charts.append(chart(f"mIoU of {curve.stage}", "iteration", "mIoU", line, dots, from_zero=True))
    return {"stage": curve.stage, "charts": charts}


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of as many neighbours each."""
    span = math.ceil(len(points) / most)
    chunks = [points[at : at + span] for at in range(0, len(points), span)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def dataset_sheet(report: Report) -> dict[str, Any] | None:
    """Counts and sizes of each split, and the sheet of samples."""
    summary, folder = artifacts.read(report, "dataset", SUMMARY), artifacts.folder(report, "dataset")
    if summary is None or folder is None:
        return None
    splits = []
    for split, found in summary.items():
        sizes = [f"{size['width']} × {size['height']}" for size in found["sizes"]]
        said = ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
        ignored = found["ignored_pixels"] / max(sum(found["class_pixels"]) + found["ignored_pixels"], 1)
        splits.append({"name": split, "pairs": found["pairs"], "sizes": said, "ignored": ignored})
    sheet = folder / "samples.png"
    return {"splits": splits, "sheet": downsized(sheet, SHEET_WIDTH) if sheet.exists() else None}


def pictures(report: Report) -> dict[str, Any] | None:
    """What the stage preview chose and drew, with the files embedded."""
    found, folder = artifacts.read(report, "pictures", PICTURES), artifacts.folder(report, "pictures")
    if found is None or folder is None:
        return None
    images = [
        {**image, "files": {k: embedded(folder / f) for k, f in image["files"].items()}} for image in found["images"]
    ]
    return {**found, "images": images}


def facts(report: Report) -> list[tuple[str, str]]:
    """What the figures hold for: machine, versions, seed."""
    machine = report.get("machine", {})
    known = {
        "processor": machine.get("processor"),
        "cores": machine.get("cores"),
        "system": machine.get("system"),
        "engine": measured_with(report),
        "int8 parity": parity(report.get("parity")),
        "image size": " × ".join(map(str, report["size"])) if report.get("size") else None,
        "seed": report["seed"],
        "python": machine.get("python"),
        **report.get("packages", {}),
    }
    return [(name, str(value)) for name, value in known.items() if value not in (None, "")]


def parity(found: Mapping[str, Any] | None) -> str | None:
    """How far an int8 file is from the network that it was made of."""
    if not found:
        return None
    difference = found["miou_deployed"] - found["miou_reference"]
    equal = f"{found['equal_pixels']:.2%} of the pixels equal"
    return f"mIoU {difference:+.4f} from the {found['reference']} network, {equal}, on {found['images']} images"
