"""report.json: the baseline beside the compressed network, every number as measured on the deployed file.

Below: what the artifacts that it names hold besides. They may have been deleted by the time that a page is drawn.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config
from segslim.deployment.deployment import Deployment, Precision, precision_in_words
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.plan import Plan
from segslim.pipeline.runner import Outcome
from segslim.pipeline.stage import BASELINE, read_json
from segslim.reporting.metrics import Report, latency_of
from segslim.training.files import CURVE_FILE, read_curve

ROLES = {"baseline": BASELINE, "compressed": ""}  # the two networks, and how the kinds of their artifacts begin

# the artifacts that a report is made of
WANTED = (*(prefix + kind for prefix in ROLES.values() for kind in ("deployment", "engine", "metrics")), "latency")


def build_report(
    config: Config,
    plan: Plan,
    outcomes: Sequence[Outcome],
    overrides: Sequence[str] = (),
    front: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contract with everything downstream.

    `baseline` and `compressed` hold {miou, class_iou, accuracy, kappa, dice, agreement, flops, params, size_bytes,
    latency_ms: {quickest (see evaluation.Latency), mean, median, p99, std}, engine, weights (their type), target (the
    processors of int8), precision, session (what the engine says of itself), deployment (its folder)}; where there are
    no labels, miou to dice are null, and agreement is {miou, class_iou, equal_pixels} against the dense network's
    predictions. `parity` is how far an int8 file is from the network before it, or null; `change` holds fractions (-0.2
    is a fifth less), and for mIoU and the agreement's the difference. Its `latency` is the median of rounds in which
    both networks took turns, by the quickest run of each, and its `latency_interval` the 95 % interval of that; `timed`
    says when ({at}), what other processes took of the cores meanwhile ({load: {others, cores}}), and whether other jobs
    of a sweep ran on the machine (beside), and of each network {conditions: {celsius, mhz, most_mhz, throttled}}, the
    worst of its runs, as far as the system tells. A number that the strategy's stages do not measure is null. `machine`
    is the one that was timed on: of a board also {board, engines}.

    `reconstruction` holds {layer, before, after, left} of each layer that was solved for: the relative error of its
    outputs, and why it was left as it was, or "".

    `pruned_by` names the criterion and the allocation of a pruning, where `auto` was decided for one.

    `warnings` are sentences on what may be wrong with the data.

    `stages` and `artifacts` (by kind) name the folders that the page is drawn from; `advice` is what to try instead, in
    sentences.

    Args:
        config: what ran.
        plan: its steps, and which of them gives each kind of artifact.
        outcomes: where each step's artifact is.
        overrides: what was typed.
        front: of compress=front, what it was chosen from.
    """
    paths = {outcome.step.fingerprint: outcome.artifact.path for outcome in outcomes}
    folders = {kind: paths[step.fingerprint] for kind, step in plan.results.items()}
    baseline, compressed = (_measured(folders, role) for role in ROLES)
    timed = _read(folders, "latency")
    # what was timed on, as the stages that time say it
    identities = [outcome.step.recipe["identity"] for outcome in outcomes]
    timed_on = next((i for i in identities if isinstance(i, Mapping) and "processor" in i), {})
    packages = {name: v for outcome in outcomes for name, v in outcome.step.recipe["packages"].items() if v is not None}
    return {
        "strategy": config.compress.name,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        "stages": [
            {
                "name": outcome.step.label,
                "fingerprint": outcome.step.fingerprint,
                "cached": outcome.cached,
                "seconds": outcome.seconds,
                "result": outcome.artifact.manifest["result"],
                "artifact": str(outcome.artifact.path),
            }
            for outcome in outcomes
        ],
        "baseline": baseline,
        "compressed": compressed,
        "change": _change(baseline, compressed, timed.get("ratio")),
        "timed": timed.get("measured"),
        "pruned_by": _pruned_by(outcomes),
        "parity": _read(folders, "parity") or None,
        "warnings": [warning for outcome in outcomes for warning in outcome.warnings],
        "reconstruction": _reconstruction(folders),
        "advice": timed.get("advice", []),
        "overrides": list(overrides),
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "size": list(config.dataset.size),
        "classes": config.dataset.classes,
        "colours": palette(config.dataset.num_classes, config.dataset.colours),
        "artifacts": {kind: str(folder) for kind, folder in folders.items()},
        "front": front,
        "machine": {
            "host": platform.node(),
            "python": platform.python_version(),
            "system": platform.platform(terse=True),
            **timed_on,  # of a board its own
        },
        "packages": dict(sorted(packages.items())),
    }


def write_report(report: Report, file: Path) -> None:
    write_atomically(json.dumps(report, indent=2, ensure_ascii=False) + "\n", file)


def write_atomically(text: str, file: Path) -> None:
    """Writes a file at once: a reader finds the old one or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}-{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _measured(folders: Mapping[str, Path], role: str) -> dict[str, Any]:
    prefix = ROLES[role]
    metrics = _read(folders, prefix + "metrics")
    cost = _cost(folders.get(prefix + "deployment"))
    engine = _read(folders, prefix + "engine")
    timed = _read(folders, "latency")
    latency, sessions = timed.get(role), timed.get("sessions", {})
    return {
        **{key: metrics.get(key) for key in ("miou", "class_iou", "accuracy", "kappa", "dice", "agreement")},
        **{key: metrics[key] for key in ("augmented", "auc_roc") if key in metrics},
        **{key: cost.get(key) for key in ("flops", "params", "size_bytes")},
        "latency_ms": latency and {key: latency[key] for key in ("quickest", "mean", "median", "p99", "std")},
        "engine": engine.get("engine"),
        "weights": engine.get("weights"),
        "target": engine.get("target"),
        "precision": precision_in_words(Precision(engine["weights"], target=engine["target"]), engine["precision"])
        if engine
        else None,
        "session": sessions.get(role, sessions.get("compressed")),  # a network alone is timed once
        "deployment": str(folders[prefix + "deployment"]) if prefix + "deployment" in folders else None,
    }


def _pruned_by(outcomes: Sequence[Outcome]) -> str | None:
    """The criterion and the allocation, as `auto` was decided; None where nothing was pruned."""
    found: dict[str, Any] = {}
    for outcome in outcomes:
        found |= outcome.step.recipe.get("config", {})
    named = [found[key] for key in ("compress.criterion", "compress.allocation") if found.get(key)]
    return ", ".join(named) if len(named) == 2 else None


def _reconstruction(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    errors = Checkpoint.measured_in(folders["checkpoint"]).get("reconstruction", {}) if "checkpoint" in folders else {}
    return [
        {"layer": name.removesuffix(".weight"), "before": before, "after": after, "left": left}
        for name, (before, after, left) in errors.items()
    ]


def _read(folders: Mapping[str, Path], kind: str) -> Any:
    return read_json(folders[kind], kind) if kind in folders else {}


def _change(
    baseline: Mapping[str, Any], compressed: Mapping[str, Any], ratio: Mapping[str, float] | None
) -> dict[str, Any]:
    def fraction(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else after / before - 1

    def difference(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else after - before

    same = None if latency_of(baseline) is None else 0.0  # without a ratio, one measurement stands for both
    agreement = [(network["agreement"] or {}).get("miou") for network in (baseline, compressed)]
    return {
        "flops": fraction(baseline["flops"], compressed["flops"]),
        "params": fraction(baseline["params"], compressed["params"]),
        "size": fraction(baseline["size_bytes"], compressed["size_bytes"]),
        "latency": ratio["value"] - 1 if ratio else same,
        "latency_interval": [ratio["low"] - 1, ratio["high"] - 1] if ratio else [same, same],
        "miou": difference(baseline["miou"], compressed["miou"]),
        "agreement": difference(*agreement),
    }


# --- the artifacts of a report


@dataclass(frozen=True)
class TrainingCurve:
    """Of the stage called `stage`: (iteration, value) of the loss, and of the mIoU where it was evaluated."""

    stage: str
    loss: list[tuple[float, float]]
    miou: list[tuple[float, float]]


@dataclass(frozen=True)
class GroupSummary:
    """A channel group's channels before and after, None where it was not pruned; `losses` are (fraction removed, loss
    of mIoU), by rising fraction.
    """

    name: str
    channels: int | None
    kept: int | None
    losses: list[tuple[float, float]]

    @property
    def mean_loss(self) -> float:
        return sum(loss for _, loss in self.losses) / len(self.losses) if self.losses else 0.0

    def without_counts(self) -> "GroupSummary":
        return replace(self, channels=None, kept=None)


def artifact_folder(report: Report, kind: str) -> Path | None:
    """The folder of the artifact of a kind, None where it has been deleted."""
    path = report.get("artifacts", {}).get(kind)
    return Path(path) if path is not None and Path(path).is_dir() else None


def read_artifact(report: Report, kind: str) -> Any:
    """What a stage gave as plain JSON, None where it has been deleted."""
    folder = artifact_folder(report, kind)
    return read_json(folder, kind) if folder is not None and (folder / f"{kind}.json").exists() else None


def deleted_stages(report: Report) -> list[str]:
    """The stages whose artifacts have been deleted, or are not named by the report."""
    there = {name for name, _ in _stage_folders(report)}
    return [stage["name"] for stage in report["stages"] if stage["name"] not in there]


def training_curves(report: Report) -> list[TrainingCurve]:
    """Of every stage that trained, in their order."""
    curves = []
    for stage, path in _stage_folders(report):
        points = read_curve(path / CURVE_FILE)
        loss, miou = ([(float(at), point[name]) for at, point in points if name in point] for name in ("loss", "miou"))
        if points:
            curves.append(TrainingCurve(stage, loss, miou))
    return curves


def channel_groups(report: Report) -> list[GroupSummary]:
    """The channel groups, those that mIoU depends on most first.

    Where pruning went by steps: the first analysis, and the channels before the first step and after the last.
    """
    losses: dict[str, dict[str, float]] = {}
    counts: dict[str, list[Mapping[str, int]]] = {}
    for _, path in _stage_folders(report):
        losses = losses or _losses(path)
        for name, count in Checkpoint.measured_in(path).get("groups", {}).items():
            counts.setdefault(name, []).append(count)
    groups = [
        GroupSummary(
            name,
            counts[name][0]["channels"] if name in counts else None,
            counts[name][-1]["kept"] if name in counts else None,
            sorted((float(fraction), loss) for fraction, loss in losses.get(name, {}).items()),
        )
        for name in {**losses, **counts}
    ]
    return sorted(groups, key=lambda group: -group.mean_loss)


def _stage_folders(report: Report) -> Iterator[tuple[str, Path]]:
    for stage in report["stages"]:
        if "artifact" in stage and Path(stage["artifact"]).is_dir():
            yield stage["name"], Path(stage["artifact"])


def _cost(folder: Path | None) -> dict[str, Any]:
    return {} if folder is None else asdict(Deployment(folder).cost)


def _losses(folder: Path) -> dict[str, dict[str, float]]:
    """Of a stage that gave a sensitivity."""
    return read_json(folder, "sensitivity")["losses"] if (folder / "sensitivity.json").exists() else {}
