"""The front of compress=front as report.json has it: for the screen, for its page, and for that of a sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segslim.reporting.charts import Chart, Curve, Dot, chart
from segslim.reporting.jobs import run_command
from segslim.reporting.metrics import Report

WIDTH, HEIGHT = 78, 18  # characters of the plot
LEAST = 0.1  # of mIoU below the dense network: what lost more is not drawn
UNITS = {"miou_loss": "{:.4f}", "latency_ms": "{:.2f} ms", "latency_ratio": "{:.3f}", "size_mb": "{:.2f} MB"}
KINDS = (("dense", "D"), ("float", "o"), ("int8", "x"), ("chosen", "#"))


def figure(point: Mapping[str, Any], name: str, end: str = "value") -> float:
    return float(point["figures"][name][end])


def kind(front: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """dense, chosen, int8 or float."""
    if point["name"] in ("dense", front["chosen"]):
        return "chosen" if point["name"] == front["chosen"] else "dense"
    return "int8" if point["precision"] == "int8" else "float"


def drawn(front: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points that are worth drawing."""
    return [
        point for point in front["points"] if figure(point, "miou_loss") < LEAST or point["name"] == front["chosen"]
    ]


def bound_lines(front: Mapping[str, Any]) -> list[str]:
    """What is deployed, and of each bound whether it holds, and by how much."""
    lines = ["no point holds every bound"] if front["missed"] else []
    for bound in front["bounds"]:
        name, text = bound["name"], UNITS.get(bound["name"], "{:.3f}").format
        found = text(bound["figure"]["value"])
        if bound["pessimistic"] and bound["figure"]["high"] != bound["figure"]["value"]:
            found += f", at worst {text(bound['figure']['high'])}"
        state = "holds, with room for" if bound["room"] >= 0 else "is missed by"
        soft = " (soft)" if bound["soft"] else ""
        lines.append(f"compress.{name}={bound['most']:g}{soft} {state} {text(abs(bound['room']))}: {found}")
    return lines


def headline(front: Mapping[str, Any]) -> str:
    chosen = next(point for point in front["points"] if point["name"] == front["chosen"])
    speed, change = 1 / figure(chosen, "latency_ratio"), 0.0 - figure(chosen, "miou_loss")
    what = f"{chosen['name']}, {speed:.2f} times as fast, mIoU {change:+.4f}"
    return f"chosen, as the nearest: {what}" if front["missed"] else f"chosen: {what}"


def terminal_view(report: Report) -> Group:
    """The plot and the table of the points, at 80 columns."""
    front = report["front"]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("  point", "mIoU", "loss", "at worst", "latency", "ratio", "size", ""):
        table.add_column(heading, justify="left" if heading in ("  point", "") else "right", no_wrap=True)
    for point in front["points"]:
        chosen = point["name"] == front["chosen"]
        table.add_row(
            ("> " if chosen else "  ") + point["name"],
            f"{figure(point, 'miou'):.4f}",
            f"{figure(point, 'miou_loss'):.4f}",
            f"{figure(point, 'miou_loss', 'high'):.4f}",
            f"{figure(point, 'latency_ms'):.2f} ms",
            f"{figure(point, 'latency_ratio'):.3f}",
            f"{figure(point, 'size_mb'):.2f} MB",
            "chosen" if chosen else "beaten" if point["beaten"] else "",
            style="bold" if chosen else "dim" if point["beaten"] else "",
        )
    lines = [f"  {line}" for line in (headline(front), *bound_lines(front))]
    lines += [f"  {failed['name']} failed: {failed['error']}" for failed in front["failed"]]
    return Group(Text(plot(front)), "", table, "", *lines)


def plot(front: Mapping[str, Any]) -> str:
    """mIoU against latency, drawn with characters."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(WIDTH, HEIGHT)
    for name, marker in KINDS:
        points = [point for point in drawn(front) if kind(front, point) == name]
        if points:
            xs, ys = ([figure(point, key) for point in points] for key in ("latency_ms", "miou"))
            plotext.scatter(xs, ys, marker=marker, label=name)
    plotext.xlabel("latency (ms); up: mIoU")
    text: str = plotext.uncolorize(plotext.build())
    return "\n".join(f" {line.rstrip()}" for line in text.splitlines())


def page_context(report: Report) -> dict[str, Any] | None:
    """What the page of a run shows of its front; None where it has none."""
    front = report.get("front")
    if not front:
        return None
    rows = [
        {
            **point,
            "command": run_command(point["overrides"]),
            "chosen": point["name"] == front["chosen"],
            "masks": masks_page(point),
            "file": str(Path(point["deployment"]) / "model.onnx"),
        }
        for point in front["points"]
    ]
    return {
        "rows": rows,
        "chosen": next(row for row in rows if row["chosen"]),
        "headline": headline(front),
        "missed": bool(front["missed"]),
        "bounds": bound_lines(front),
        "failed": front["failed"],
        "classes": report.get("classes") or list(map(str, range(len(front["points"][0]["class_iou"] or ())))),
        "charts": [front_chart(front, *axis) for axis in AXES],
    }


def point_as_network(point: Mapping[str, Any], dense_ms: float) -> dict[str, Any]:
    """A point as the charts of a sweep take a network. dense_ms: what the dense network took there."""
    return {
        "miou": figure(point, "miou"),
        "agreement": {"miou": figure(point, "miou")},
        "flops": figure(point, "flops"),
        "size_bytes": 1e6 * figure(point, "size_mb"),
        "latency_ms": {"quickest": dense_ms * figure(point, "latency_ratio")} if dense_ms else None,
    }


def masks_page(point: Mapping[str, Any]) -> str:
    """Where its masks are beside the dense network's, from the folder of the run."""
    return f"{quote(point['page'])}#predictions"


AXES = (("latency_ms", "latency (ms)"), ("size_mb", "size (MB)"), ("flops_ratio", "FLOPs, of the dense network's"))


def front_chart(front: Mapping[str, Any], name: str, label: str) -> Chart:
    """mIoU against a cost, each point with its interval; the dense and the chosen network on top, with their names."""
    dense, chosen = front["points"][0], front["chosen"]
    whiskers: list[Curve] = []
    dots: list[Dot] = []
    for point in sorted(drawn(front), key=lambda point: (point["name"] in (chosen, "dense"), not point["beaten"])):
        named = point["name"] in (chosen, "dense")
        colour = "base" if point is dense else "cool0" if point["precision"] == "int8" else "warm0"
        colour += "" if point is dense else " chosen" if named else " beaten" if point["beaten"] else ""
        x, y = figure(point, name), figure(point, "miou")
        if point is not dense:
            ends = [(x, figure(dense, "miou") - figure(point, "miou_loss", end)) for end in ("low", "high")]
            title = f"{point['name']}: 95 % interval of its difference to the dense network"
            whiskers.append(Curve(ends, f"{colour} whisker", title))
        title = f"{point['name']}: mIoU {y:.4f}, {label} {x:.3g}"
        dots.append(Dot((x, y), colour, title, point["name"] if named else "", masks_page(point)))
    return chart(f"mIoU against {label.partition(' (')[0].partition(',')[0]}", label, "mIoU", whiskers, dots)
