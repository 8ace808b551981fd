"""select: dataset, deployment -> engine. The fastest of the config's candidates that give the network's own output."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.deployment.deployment import Deployment, precision_in_words
from segslim.deployment.engines import Candidate, open_session, select
from segslim.evaluation.latency import measure
from segslim.pipeline.stage import Workspace
from segslim.records import ENGINE, write_record
from segslim.stages.shared.pairs import usable_pairs
from segslim.stages.shared.sessions import threads
from segslim.stages.shared.validation import batches


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes engine.json {engine, precision, weights, candidates: each with its agreement, its latency in ms, or why it
    is excluded}.
    """
    deployment, cores = inputs["deployment"], threads(config)
    precision = Deployment.load(deployment).precision
    floats = precision.compute or (config.engine.precision,)
    pairs = usable_pairs(config, inputs["dataset"], "val")
    image, _ = next(iter(batches(config, pairs[:1])))
    checked = open_session("onnxruntime", deployment, threads=cores)  # export compared it with the network itself
    feed = {checked.input_names[0]: image}
    ranked = select(
        deployment,
        [Candidate(name, compute) for name in config.engine.candidates for compute in floats],
        threads=cores,
        inputs=feed,
        exact=not precision.is_int8 and floats == ("float32",),
        reference=checked.run(feed)[0],
        timing=lambda runs: {name: latency.median for name, latency in measure(runs, warmup=2, iters=15).items()},
    )
    best = ranked[0].candidate
    record = {
        "engine": best.engine,
        "precision": best.precision,
        "weights": precision.weights,
        "candidates": [dataclasses.asdict(choice) for choice in ranked],
    }
    write_record(workspace.artifact, ENGINE, record)
    timed = [(c, f"{c.candidate.engine} {c.candidate.precision}") for c in ranked if c.latency_ms is not None]
    others = [f"{name.removesuffix(' float32')} {c.latency_ms:.2f} ms" for c, name in timed]
    return f"{best.engine}, {precision_in_words(precision.weights, best.precision)} ({', '.join(others)})"
