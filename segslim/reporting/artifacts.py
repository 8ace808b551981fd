"""What a report's artifacts hold beside its figures. Each may be gone by the time that the page is made: then None."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segslim.networks.checkpoint import Checkpoint
from segslim.records import SENSITIVITY, read_record
from segslim.training.files import CURVE_FILE, read_curve

Report = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingCurve:
    """Of the stage called `stage`: (iteration, value) of the loss, and of the mIoU where it was evaluated."""

    stage: str
    loss: list[tuple[float, float]]
    miou: list[tuple[float, float]]


@dataclass(frozen=True)
class Group:
    """Channels of a layer before and after; `losses` are (share removed, loss of mIoU), by rising share."""

    name: str
    channels: int | None
    kept: int | None
    losses: list[tuple[float, float]]

    @property
    def mean_loss(self) -> float:
        return sum(loss for _, loss in self.losses) / len(self.losses) if self.losses else 0.0


def folder(report: Report, kind: str) -> Path | None:
    """The artifact of a kind, if it is still there."""
    path = report.get("artifacts", {}).get(kind)
    return Path(path) if path is not None and Path(path).is_dir() else None


def gone(report: Report) -> list[str]:
    """The stages whose artifacts are not there any more, or of which the report does not say where they are."""
    return [
        stage["name"] for stage in report["stages"] if not ("artifact" in stage and Path(stage["artifact"]).is_dir())
    ]


def read(report: Report, kind: str, name: str) -> Any:
    """The content of a JSON file of an artifact, or None."""
    return _json(folder(report, kind), name)


def curves(report: Report) -> list[TrainingCurve]:
    """Of every stage that trained and wrote one, in their order."""
    found = []
    for stage, path in _stages(report):
        points = read_curve(path / CURVE_FILE)
        loss, miou = ([(float(at), point[name]) for at, point in points if name in point] for name in ("loss", "miou"))
        if points:
            found.append(TrainingCurve(stage, loss, miou))
    return found


def groups(report: Report) -> list[Group]:
    """Channel groups, those that mIoU depends on most first. Where pruning went by steps: the first analysis, and the
    channels before the first step and after the last.
    """
    losses: dict[str, dict[str, float]] = {}
    counts: dict[str, list[Mapping[str, int]]] = {}
    for _, path in _stages(report):
        losses = losses or (_json(path, SENSITIVITY) or {}).get("losses", {})
        for name, count in Checkpoint.measured_in(path).get("groups", {}).items():
            counts.setdefault(name, []).append(count)
    found = [
        Group(
            name,
            counts[name][0]["channels"] if name in counts else None,
            counts[name][-1]["kept"] if name in counts else None,
            sorted((float(share), loss) for share, loss in losses.get(name, {}).items()),
        )
        for name in {**losses, **counts}
    ]
    return sorted(found, key=lambda group: -group.mean_loss)


def uncounted(group: Group) -> Group:
    """The group without its channels, where those that it kept differ from job to job."""
    return replace(group, channels=None, kept=None)


def _stages(report: Report) -> Iterator[tuple[str, Path]]:
    for stage in report["stages"]:
        path = Path(stage["artifact"]) if "artifact" in stage else None
        if path is not None and path.is_dir():
            yield stage["name"], path


def _json(path: Path | None, name: str) -> Any:
    return read_record(path, name) if path is not None and (path / name).exists() else None
