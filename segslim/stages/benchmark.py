"""benchmark: both deployments, each in its engine -> latency. Timed in turn, so that their ratio is fair."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segslim.config import Config
from segslim.evaluation.latency import measure
from segslim.pipeline.stage import Workspace
from segslim.stages.alternatives import CLEARLY, advice, alternatives
from segslim.stages.sessions import open_selected, prediction


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes latency.json {baseline, compressed: {mean, median, p99, std, samples}}: ms to predict one image.

    Where the compressed network is not faster there is `advice` in it, and the `alternatives` that it is drawn from.
    """
    dense = inputs["baseline deployment"] == inputs["deployment"]
    sessions = {
        lane: open_selected(inputs[prefix + "engine"], inputs[prefix + "deployment"], config)
        for lane, prefix in (("baseline", "baseline "), ("compressed", ""))
        if not (dense and lane == "baseline")
    }
    runs = {lane: prediction(session, config) for lane, session in sessions.items()}
    measured = measure(runs, config.benchmark.warmup, config.benchmark.iters)
    plain: dict[str, Any] = {lane: dataclasses.asdict(latency) for lane, latency in measured.items()}
    if dense:  # nothing was compressed: one measurement is both
        plain["baseline"] = plain["compressed"]
    elif measured["compressed"].mean > CLEARLY * measured["baseline"].mean:
        others = alternatives(inputs, config)
        plain["alternatives"] = {name: latency.median for name, latency in others.items()}
        plain["advice"] = [advice(others)]
    plain["sessions"] = {lane: session.describe() for lane, session in sessions.items()}
    (workspace.artifact / "latency.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return " -> ".join(f"{latency.mean:.2f} ms" for latency in measured.values())
