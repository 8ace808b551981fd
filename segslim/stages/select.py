"""select: dataset, deployment -> engine. The fastest of the config's candidates that give the network's own output;
the baseline's, and the one that is listed first, where it is as fast.
"""

import dataclasses
from typing import Any

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment, precision_in_words
from segslim.deployment.engines import ENGINES as KNOWN
from segslim.deployment.engines import available, computes_in
from segslim.devices.board import Board
from segslim.errors import UserError
from segslim.pipeline.stage import Workspace, stage
from segslim.plugins import import_path, is_path
from segslim.stages.shared import ENGINES
from segslim.stages.shared.images import batches, usable_pairs
from segslim.stages.shared.sessions import other_machine, ranked_engines, timed_on


@stage(
    does="choosing the engine",
    gives="engine",
    reads=[
        *("engine", "dataset.val_transforms", "benchmark.settle"),
        *("benchmark.host", "benchmark.python", "benchmark.results"),
    ],
    ignores=["dataset.source", "dataset.on_error"],
    packages=ENGINES,
    version=9,
)
def select(
    dataset: Dataset,
    deployment: Deployment,
    config: Config,
    workspace: Workspace,
    baseline_engine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Gives {engine, precision, weights, target, candidates}: each with its agreement, its latency in ms, or why it is
    excluded.
    """
    pairs = usable_pairs(config, dataset, "val")
    image, _ = next(iter(batches(config, pairs[:1])))
    ranked = ranked_engines(deployment, image, config, baseline_engine, config.benchmark.settle, other_machine(config))
    precision = deployment.precision
    best = ranked[0].candidate
    timed = [(c, f"{c.candidate.engine} {c.candidate.precision}") for c in ranked if c.latency_ms is not None]
    others = [f"{name.removesuffix(' float32')} {c.latency_ms:.2f} ms" for c, name in timed]
    workspace.summarize(f"{best.engine}, {precision_in_words(precision, best.precision)} ({', '.join(others)})")
    return {
        "engine": best.engine,
        "precision": best.precision,
        "weights": precision.weights,
        "target": precision.target,
        "candidates": [dataclasses.asdict(choice) for choice in ranked],
    }


select.depends(timed_on)


@select.check
def check_engines(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError when no engine that the config admits is installed, or none computes in engine.precision."""
    candidates = ", ".join(config.engine.candidates)
    for name in config.engine.candidates:
        if is_path(name):
            import_path(name, "engine.candidates")
        elif name not in KNOWN:
            raise UserError(
                f"engine.candidates={name}: should be one of {', '.join(KNOWN)}, or package.module:open_session"
            )
    installed = available(config.engine.candidates)
    if not installed:
        raise UserError(f"engine: none of {candidates} is installed; installed are {', '.join(available())}")
    precision = config.engine.precision
    if not any(precision in computes_in(name) for name in installed):
        raise UserError(f"engine.precision={precision}: none of {candidates} computes in it on this machine")
    device = other_machine(config)
    if isinstance(device, Board):
        device.check_engines(installed, precision, int8="quantize" in earlier)
