"""profile: checkpoint, the first deployment and its engine -> costs. What latency each group of channels is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segslim.channels.graph import Kept
from segslim.channels.latency import profile
from segslim.config import Config
from segslim.pipeline.stage import Workspace
from segslim.stages.shared.prunings import Prunings

#: Few runs for each: the savings may be rough, since prune_latency measures what it chose.
WARMUP, ITERS, SETTLE = 2, 15, 0.02


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes costs.json (see LatencyCost)."""
    prunings = Prunings(inputs, config, workspace.scratch)
    deploy = prunings.slices()

    def measure(kept: Sequence[Kept]) -> list[float]:
        return prunings.measure(kept, deploy, WARMUP, ITERS, SETTLE)

    def progress(done: int, total: int) -> None:
        workspace.progress("one group at a time", done, total)

    cost = profile(prunings.graph, measure, config.compress.align, progress)
    cost.save(workspace.artifact)
    return f"{len(cost.saving_groups())} of {len(cost.savings)} groups save time in {prunings.engine}"
