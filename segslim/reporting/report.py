"""report.json: the baseline beside the compressed network, every number as measured on the deployed file."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config
from segslim.deployment.deployment import precision_in_words
from segslim.pipeline.plan import Plan
from segslim.pipeline.runner import Outcome
from segslim.pipeline.stage import BASELINE
from segslim.records import COST, ENGINE, LATENCY, METRICS, PARITY, read_record
from segslim.reporting.render import write_whole

# the artifacts that a report is made of
WANTED = (*(lane + kind for lane in (BASELINE, "") for kind in ("deployment", "engine", "metrics")), "latency")


def build_report(
    config: Config, plan: Plan, outcomes: Sequence[Outcome], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """The contract with everything downstream.

    `baseline` and `compressed` hold {miou, class_iou, accuracy, kappa, dice, flops, params, size_bytes,
    latency_ms: {mean, median, p99, std}, engine, weights (their type), precision, session (what the engine says
    of itself), deployment (its folder)}; `parity` is how far an int8 file is from the network before it, or null;
    `change` holds fractions (-0.2 is a fifth less), and for mIoU the difference. A number that the strategy's stages do
    not measure is null.

    `stages` and `artifacts` (by kind) name the folders that the page is drawn from; `advice` is what to try instead, in
    sentences; `overrides` what was typed.
    """
    paths = {outcome.step.fingerprint: outcome.artifact.path for outcome in outcomes}
    folders = {kind: paths[step.fingerprint] for kind, step in plan.results.items()}
    baseline, compressed = (_measured(folders, lane) for lane in ("baseline", "compressed"))
    return {
        "strategy": config.compress.name,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        "stages": [_stage(outcome) for outcome in outcomes],
        "baseline": baseline,
        "compressed": compressed,
        "change": _change(baseline, compressed),
        "parity": _read(folders.get("parity"), PARITY) or None,
        "advice": _read(folders.get("latency"), LATENCY).get("advice", []),
        "overrides": list(overrides),
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "size": list(config.dataset.size),
        "classes": config.dataset.classes,
        "colours": palette(config.dataset.num_classes, config.dataset.colours),
        "artifacts": {kind: str(folder) for kind, folder in folders.items()},
        "machine": _machine(outcomes),
        "packages": _packages(outcomes),
    }


def write_report(report: Mapping[str, Any], file: Path) -> None:
    write_whole(json.dumps(report, indent=2, ensure_ascii=False) + "\n", file)


def _stage(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.step.label,
        "fingerprint": outcome.step.fingerprint,
        "cached": outcome.cached,
        "seconds": outcome.seconds,
        "result": outcome.artifact.manifest["result"],
        "artifact": str(outcome.artifact.path),
    }


def _machine(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was timed on, as the stages that time say it; Python and the system of this run."""
    identities = [outcome.step.recipe["identity"] for outcome in outcomes]
    timed = next((i for i in identities if isinstance(i, Mapping) and "processor" in i), {})
    return {**timed, "python": platform.python_version(), "system": platform.platform(terse=True)}


def _packages(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Versions of all that a result depends on."""
    found = {name: v for outcome in outcomes for name, v in outcome.step.recipe["packages"].items() if v is not None}
    return dict(sorted(found.items()))


def _measured(folders: Mapping[str, Path], lane: str) -> dict[str, Any]:
    prefix = BASELINE if lane == "baseline" else ""
    metrics = _read(folders.get(prefix + "metrics"), METRICS)
    cost = _read(folders.get(prefix + "deployment"), COST)
    latency = _read(folders.get("latency"), LATENCY)
    engine = _read(folders.get(prefix + "engine"), ENGINE)
    sessions = latency.get("sessions", {})
    return {
        **{key: metrics.get(key) for key in ("miou", "class_iou", "accuracy", "kappa", "dice")},
        **{key: cost.get(key) for key in ("flops", "params", "size_bytes")},
        "latency_ms": _latency(latency.get(lane)),
        "engine": engine.get("engine"),
        "weights": engine.get("weights"),
        "precision": precision_in_words(engine["weights"], engine["precision"]) if engine else None,
        "session": sessions.get(lane, sessions.get("compressed")),  # a network alone is timed once
        "deployment": str(folders[prefix + "deployment"]) if prefix + "deployment" in folders else None,
    }


def _change(baseline: Mapping[str, Any], compressed: Mapping[str, Any]) -> dict[str, float | None]:
    def fraction(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else after / before - 1

    def latency(measured: Mapping[str, Any]) -> float | None:
        return (measured["latency_ms"] or {}).get("mean")

    both = baseline["miou"] is not None and compressed["miou"] is not None
    return {
        "flops": fraction(baseline["flops"], compressed["flops"]),
        "params": fraction(baseline["params"], compressed["params"]),
        "size": fraction(baseline["size_bytes"], compressed["size_bytes"]),
        "latency": fraction(latency(baseline), latency(compressed)),
        "miou": compressed["miou"] - baseline["miou"] if both else None,
    }


def _read(folder: Path | None, name: str) -> dict[str, Any]:
    return {} if folder is None else read_record(folder, name)


def _latency(measured: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if measured is None else {key: measured[key] for key in ("mean", "median", "p99", "std")}
