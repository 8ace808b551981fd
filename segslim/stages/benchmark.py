"""benchmark: both deployments, each in its engine -> latency. Timed in turn, so that their ratio is fair."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from segslim.config import Config
from segslim.deployment.deployment import Deployment, precision_in_words
from segslim.deployment.engines import Session, available, computes_in, open_session
from segslim.errors import UserError
from segslim.evaluation.latency import Latency, measure
from segslim.hardware import machine_identity
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import ENGINES
from segslim.stages.shared.sessions import open_both, open_selected, prediction, threads

Deployed = tuple[Mapping[str, Any], Deployment]  # an engine, as `select` gives it, and what it runs

CLEARLY = 0.98  # of the baseline's time: less cannot be distinguished from none
FEWER = 3  # as many times fewer runs than the benchmark proper: these only rank


@stage(gives="latency", reads=["benchmark", "engine", "dataset.size", "dataset.channels"], packages=ENGINES, version=3)
def benchmark(
    baseline_deployment: Deployment,
    baseline_engine: dict[str, Any],
    deployment: Deployment,
    engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
) -> dict[str, Any]:
    """Gives {baseline, compressed: {mean, median, p99, std, samples}}: ms to predict one image.

    Where the compressed network is not faster there is `advice` in it, and the `alternatives` that it is drawn from.
    """
    baseline, compressed = (baseline_engine, baseline_deployment), (engine, deployment)
    sessions = open_both(baseline, compressed, config)
    runs = {role: prediction(session, config) for role, session in sessions.items()}
    measured = measure(runs, config.benchmark.warmup, config.benchmark.iters, config.benchmark.settle)
    record: dict[str, Any] = {role: dataclasses.asdict(latency) for role, latency in measured.items()}
    if "baseline" not in sessions:  # nothing was compressed: one measurement is both
        record["baseline"] = record["compressed"]
    elif measured["compressed"].mean > CLEARLY * measured["baseline"].mean:
        others = _alternatives(baseline, deployment, config)
        deployed = _name("the compressed network", deployment, engine["engine"], engine["precision"])
        record["alternatives"] = {name: latency.median for name, latency in others.items()}
        record["advice"] = [advice(others, deployed)]
    record["sessions"] = {role: session.describe() for role, session in sessions.items()}
    workspace.summarize(" -> ".join(f"{latency.mean:.2f} ms" for latency in measured.values()))
    return record


benchmark.depends(lambda config: machine_identity())


def _alternatives(
    baseline: tuple[Mapping[str, Any], Deployment], compressed: Deployment, config: Config
) -> dict[str, Latency]:
    """Latencies of both networks on every candidate engine in every precision, all timed in turn; "baseline" is that of
    the baseline as it was selected."""
    sessions: dict[str, Session | None] = {"baseline": open_selected(*baseline, config)}
    for network, deployment in (("the dense network", baseline[1]), ("the compressed network", compressed)):
        for engine in available(config.engine.candidates):
            for compute in computes_in(engine):
                sessions[_name(network, deployment, engine, compute)] = _open(deployment, engine, compute, config)
    runs = {name: prediction(session, config) for name, session in sessions.items() if session is not None}
    iters = max(5, config.benchmark.iters // FEWER)
    return measure(runs, min(2, config.benchmark.warmup), iters, config.benchmark.settle)


def _name(network: str, deployment: Deployment, engine: str, compute: str) -> str:
    return f"{network} on {engine}, {precision_in_words(deployment.precision, compute)}"


def advice(measured: Mapping[str, Latency], deployed: str) -> str:
    """What to deploy instead of `deployed`, which was not faster than the baseline, in one sentence."""
    baseline = measured["baseline"].median
    best = min((name for name in measured if name != "baseline"), key=lambda name: measured[name].median)
    if best == deployed and measured[best].median < CLEARLY * baseline:
        return (
            f"measured once more it is faster, {measured[best].median:.2f} ms where the baseline takes {baseline:.2f}"
            " ms: something else ran on this machine; measure again with a larger benchmark.iters"
        )
    if measured[best].median < CLEARLY * baseline:
        return f"faster here: {best}, {measured[best].median:.2f} ms where the baseline takes {baseline:.2f} ms"
    return f"nothing here is faster than the baseline as it is, {baseline:.2f} ms; deploy the dense network"


def _open(deployment: Deployment, engine: str, compute: str, config: Config) -> Session | None:
    try:
        return open_session(engine, deployment, threads=threads(config), precision=compute)
    except UserError:  # Paddle Inference and int8, for one
        return None
