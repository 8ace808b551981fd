"""report.html of one run: what it says first, and the sections (sections.py) that follow."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segslim.deployment.deployment import one_line
from segslim.errors import UserError
from segslim.files import read_plain
from segslim.reporting import metrics
from segslim.reporting.front import page_context
from segslim.reporting.images import KINDS
from segslim.reporting.jobs import hydra_section, run_command
from segslim.reporting.metrics import AGREEMENT, Report, key_metrics, quality
from segslim.reporting.report import (
    channel_groups,
    deleted_stages,
    training_curves,
    write_atomically,
)
from segslim.reporting.sections import (
    class_names,
    class_rows,
    confusion_table,
    css_colour,
    dataset_summary,
    facts,
    int8_section,
    latency_chart,
    layer_costs,
    measured_with,
    predictions,
    sensitivity,
    timed,
    training_charts,
)

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"


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
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    return str(_environment().get_template(template).render(style=style, script=script, **values))


@cache  # a template is compiled once for all jobs of a sweep: half of what a page takes
def _environment() -> Any:
    import jinja2  # a tenth of a second that --help does not have

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


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
