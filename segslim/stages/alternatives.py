"""What would be faster, where the compressed network is not: both networks in every engine and precision here."""

import json
from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.engines import Session, available, computes_in, open_session
from segslim.engines.precision import in_words, read_precision
from segslim.errors import UserError
from segslim.evaluation.latency import Latency, measure
from segslim.stages.sessions import prediction, threads

CLEARLY = 0.98  # of the baseline's time: less is not told apart from none
FEWER = 3  # as many times fewer runs than the benchmark proper: these only rank


def alternatives(inputs: Mapping[str, Path], config: Config) -> dict[str, Latency]:
    """Latencies of both networks on every candidate engine in every precision, all timed in turn; "baseline" is that of
    the baseline as it was selected."""
    sessions = {"baseline": _open(inputs["baseline deployment"], *_chosen(inputs["baseline engine"]), config)}
    for lane, network in (("baseline ", "the dense network"), ("", "the compressed network")):
        deployment = inputs[lane + "deployment"]
        for engine in config.engine.candidates:
            for compute in computes_in(engine) if engine in available() else []:
                name = f"{network} on {engine}, {in_words(read_precision(deployment).weights, compute)}"
                sessions[name] = _open(deployment, engine, compute, config)
    runs = {name: prediction(session, config) for name, session in sessions.items() if session is not None}
    iters = max(5, config.benchmark.iters // FEWER)
    return measure(runs, warmup=min(2, config.benchmark.warmup), iters=iters)


def advice(measured: Mapping[str, Latency]) -> str:
    """What to deploy instead, in one sentence."""
    baseline = measured["baseline"].median
    best = min((name for name in measured if name != "baseline"), key=lambda name: measured[name].median)
    if measured[best].median < CLEARLY * baseline:
        return f"faster here: {best}, {measured[best].median:.2f} ms where the baseline takes {baseline:.2f} ms"
    return f"nothing here is faster than the baseline as it is, {baseline:.2f} ms; deploy the dense network"


def _chosen(engine: Path) -> tuple[str, str]:
    found = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    return found["chosen"], found["precision"]


def _open(deployment: Path, engine: str, compute: str, config: Config) -> Session | None:
    try:
        return open_session(engine, deployment, threads=threads(config), precision=compute)
    except UserError:  # Paddle Inference and int8, for one
        return None
