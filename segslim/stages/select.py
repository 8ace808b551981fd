"""select: dataset, deployment -> engine. The fastest of the config's candidates that give the network's own output."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.engines import open_session
from segslim.engines.selection import Candidate, select
from segslim.evaluation.latency import measure
from segslim.pipeline.stage import Workspace
from segslim.stages.pairs import usable_pairs
from segslim.stages.sessions import threads
from segslim.stages.validation import batches


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes engine.json {chosen, candidates: each with its agreement, its latency in ms, or why it is excluded}."""
    deployment, cores = inputs["deployment"], threads(config)
    pairs = usable_pairs(config, inputs["dataset"], "val")
    image, _ = next(iter(batches(config, pairs[:1])))
    checked = open_session("onnxruntime", deployment, threads=cores)  # export compared it with the network itself
    feed = {checked.input_names[0]: image}
    ranked = select(
        deployment,
        [Candidate(name, config.engine.precision) for name in config.engine.candidates],
        threads=cores,
        inputs=feed,
        reference=checked.run(feed)[0],
        timing=lambda runs: {name: latency.median for name, latency in measure(runs, warmup=2, iters=15).items()},
    )
    chosen = ranked[0].candidate.engine
    record = {"chosen": chosen, "candidates": [dataclasses.asdict(choice) for choice in ranked]}
    (workspace.artifact / "engine.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    others = [f"{c.candidate.engine} {c.latency_ms:.2f} ms" for c in ranked if c.latency_ms is not None]
    return f"{chosen} ({', '.join(others)})"
