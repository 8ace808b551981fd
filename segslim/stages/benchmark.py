"""benchmark: both deployments, each in its engine -> latency. Timed in turn, so that their ratio is fair."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segslim.config import Config
from segslim.deployment.deployment import Deployment, precision_in_words
from segslim.deployment.engines import Session, available, computes_in, open_session
from segslim.errors import UserError
from segslim.evaluation.latency import Latency, measure
from segslim.pipeline.stage import BASELINE, Workspace
from segslim.records import LATENCY, write_record
from segslim.stages.shared.sessions import open_lanes, open_selected, prediction, threads

CLEARLY = 0.98  # of the baseline's time: less is not told apart from none
FEWER = 3  # as many times fewer runs than the benchmark proper: these only rank


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes latency.json {baseline, compressed: {mean, median, p99, std, samples}}: ms to predict one image.

    Where the compressed network is not faster there is `advice` in it, and the `alternatives` that it is drawn from.
    """
    sessions = open_lanes(inputs, config)
    runs = {lane: prediction(session, config) for lane, session in sessions.items()}
    measured = measure(runs, config.benchmark.warmup, config.benchmark.iters)
    plain: dict[str, Any] = {lane: dataclasses.asdict(latency) for lane, latency in measured.items()}
    if "baseline" not in sessions:  # nothing was compressed: one measurement is both
        plain["baseline"] = plain["compressed"]
    elif measured["compressed"].mean > CLEARLY * measured["baseline"].mean:
        others = _alternatives(inputs, config)
        plain["alternatives"] = {name: latency.median for name, latency in others.items()}
        plain["advice"] = [_advice(others)]
    plain["sessions"] = {lane: session.describe() for lane, session in sessions.items()}
    write_record(workspace.artifact, LATENCY, plain)
    return " -> ".join(f"{latency.mean:.2f} ms" for latency in measured.values())


def _alternatives(inputs: Mapping[str, Path], config: Config) -> dict[str, Latency]:
    """Latencies of both networks on every candidate engine in every precision, all timed in turn; "baseline" is that of
    the baseline as it was selected."""
    baseline = open_selected(inputs["baseline engine"], inputs["baseline deployment"], config)
    sessions: dict[str, Session | None] = {"baseline": baseline}
    for lane, network in ((BASELINE, "the dense network"), ("", "the compressed network")):
        deployment = inputs[lane + "deployment"]
        weights = Deployment.load(deployment).precision.weights
        for engine in available(config.engine.candidates):
            for compute in computes_in(engine):
                name = f"{network} on {engine}, {precision_in_words(weights, compute)}"
                sessions[name] = _open(deployment, engine, compute, config)
    runs = {name: prediction(session, config) for name, session in sessions.items() if session is not None}
    iters = max(5, config.benchmark.iters // FEWER)
    return measure(runs, warmup=min(2, config.benchmark.warmup), iters=iters)


def _advice(measured: Mapping[str, Latency]) -> str:
    """What to deploy instead, in one sentence."""
    baseline = measured["baseline"].median
    best = min((name for name in measured if name != "baseline"), key=lambda name: measured[name].median)
    if measured[best].median < CLEARLY * baseline:
        return f"faster here: {best}, {measured[best].median:.2f} ms where the baseline takes {baseline:.2f} ms"
    return f"nothing here is faster than the baseline as it is, {baseline:.2f} ms; deploy the dense network"


def _open(deployment: Path, engine: str, compute: str, config: Config) -> Session | None:
    try:
        return open_session(engine, deployment, threads=threads(config), precision=compute)
    except UserError:  # Paddle Inference and int8, for one
        return None
