"""profile: checkpoint, the first deployment and its engine -> costs. What latency each group of channels is worth.
prune_latency: checkpoint, importance, costs -> checkpoint that is faster by compress.ratio.

Both time prunings as deployments, beside the first network, in the engine that was selected for that.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segslim.channels import Importance, Sensitivity
from segslim.channels.graph import Kept
from segslim.channels.latency import LatencyCost, reach
from segslim.channels.latency import profile as profile_groups
from segslim.channels.pruning import channels_of
from segslim.channels.pruning import prune as prune_network
from segslim.config import Config
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import open_session
from segslim.errors import UserError
from segslim.evaluation.latency import measure
from segslim.hardware import machine_identity
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import ENGINES, PADDLE
from segslim.stages.shared.pruning import channels_to_keep, check_order, check_pruning, check_ratio, pruned
from segslim.stages.shared.sessions import export_size, open_selected, operator_rules, prediction

log = logging.getLogger(__name__)

#: Few runs for each: the savings may be rough, since prune_latency measures what it chose.
WARMUP, ITERS, SETTLE = 2, 15, 0.02
#: A latency is this quantile of its samples: other work on the machine can only add to it.
QUICKER = 0.2

#: Writes a pruning into a folder that does not exist, and gives what engines open.
Deploy = Callable[[Kept, Path], Deployment | Path]

EXPORT = ("export", "engine")


@stage(
    gives=LatencyCost,
    reads=["dataset.size", "dataset.channels", "compress.rules", "compress.align", *EXPORT],
    packages=(*PADDLE, *ENGINES[:2]),
)
def profile(
    checkpoint: Checkpoint,
    baseline_checkpoint: Checkpoint,
    baseline_deployment: Deployment,
    baseline_engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
) -> LatencyCost:
    """Gives the latency that each group saves alone, at half of its channels and at the least."""
    trials = PruningTrials(checkpoint, baseline_deployment, baseline_engine, config, workspace.scratch)
    # only the dense network's file is there to be sliced
    sliceable = None if checkpoint.channels is not None else baseline_deployment.onnx_file
    deploy = trials.slicing(sliceable)

    def measured(kept: Sequence[Kept]) -> list[float]:
        return trials.measure(kept, deploy, WARMUP, ITERS, SETTLE)

    def progress(done: int, total: int) -> None:
        workspace.progress("one group at a time", done, total)

    cost = profile_groups(trials.graph, measured, config.compress.align, progress)
    workspace.summarize(f"{len(cost.saving_groups())} of {len(cost.savings)} groups save time in {trials.engine}")
    return cost


@stage(
    gives=Checkpoint,
    reads=[
        *("dataset.size", "dataset.channels", "compress.rules", "compress.ratio", "compress.allocation"),
        *("compress.align", *EXPORT, "benchmark"),
    ],
    packages=(*PADDLE, *ENGINES[:2]),
)
def prune_latency(
    checkpoint: Checkpoint,
    importance: Importance,
    costs: LatencyCost,
    baseline_deployment: Deployment,
    baseline_engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
    sensitivity: Sensitivity | None = None,
) -> Checkpoint:
    """Gives the checkpoint that is faster than the first one by compress.ratio, in the engine selected for that."""
    trials = PruningTrials(checkpoint, baseline_deployment, baseline_engine, config, workspace.scratch)
    idle = set(costs.savings) - set(costs.saving_groups())  # whoever saves no time loses no channels
    if not costs.saving_groups():
        raise UserError(
            f"cannot remove {config.compress.ratio} of the latency: no group of channels saves time in {trials.engine};"
            " give compress.target=flops"
        )
    options = config.benchmark

    def allocate(cost: LatencyCost) -> Any:
        return channels_to_keep(
            trials.graph, importance, sensitivity, config, idle, cost=cost, total=1.0, cost_name="latency"
        )

    def measured(kept: Any) -> list[float]:
        return trials.measure(kept, trials.exported, options.warmup, options.iters)

    kept, gone = reach(config.compress.ratio or 0.0, costs, allocate, measured)
    flops = trials.graph.flops(kept) / trials.graph.flops() - 1
    workspace.summarize(f"{-gone:+.1%} latency in {trials.engine}, {flops:+.1%} FLOPs")
    return pruned(checkpoint, trials.graph, kept)


class PruningTrials:
    """Prunings of a checkpoint, deployed and timed in turns with the first network."""

    def __init__(
        self, checkpoint: Checkpoint, deployment: Deployment, engine: dict[str, Any], config: Config, scratch: Path
    ) -> None:
        self._checkpoint, self._engine, self._config, self._scratch = checkpoint, engine, config, scratch
        self.graph = checkpoint.channel_graph(config.dataset.size, operator_rules(config))
        self._baseline = open_selected(engine, deployment, config)
        self.engine = self._baseline.name

    def measure(
        self, prunings: Sequence[Kept], deploy: Deploy, warmup: int, iters: int, settle: float = 0.25
    ) -> list[float]:
        """The latency of each pruning, in units of the first network's."""
        folders = [self._scratch / f"pruning-{number}" for number in range(len(prunings))]
        sessions = {"baseline": self._baseline}
        for folder, kept in zip(folders, prunings, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            sessions[folder.name] = open_selected(self._engine, deploy(kept, folder), self._config)
        runs = {name: prediction(session, self._config) for name, session in sessions.items()}
        timed = measure(runs, warmup, iters, settle)
        baseline, *times = (np.quantile(timed[name].samples, QUICKER) for name in sessions)
        return [float(latency / baseline) for latency in times]

    def exported(self, kept: Kept, folder: Path) -> Deployment:
        """By pruning the network itself."""
        from segslim.deployment.export import export

        network = self._checkpoint.network()
        prune_network(network, self.graph, kept)
        options = self._config.export
        size = export_size(self._config)
        return export(network, folder, size=size, output=options.output, tolerance=options.tolerance)

    def slicing(self, source: Path | None) -> Deploy:
        """As `exported`, by cutting channels out of the unpruned ONNX file, 50 times faster; `exported` itself where
        the engine reads no ONNX, or where that would give another network (a reshape by written numbers).

        source: the ONNX file of this checkpoint, where there is one already.
        """
        from segslim.deployment.onnx_graph import slice_onnx

        if self.engine == "paddle":
            return self.exported
        if source is None:
            source = self.exported({}, self._scratch / "unpruned").onnx_file

        def sliced(kept: Kept, folder: Path) -> Path:
            folder.mkdir()
            channels, tensors = channels_of(self.graph, kept), self.graph.tensors
            cut = {tensors[name]: axes for name, axes in channels.kept.items() if name in tensors}
            weights = {f"{layer}.weight": groups for layer, groups in channels.groups.items()}
            groups = {tensors[name]: number for name, number in weights.items() if name in tensors}
            slice_onnx(source, folder / "sliced.onnx", cut, groups)
            return folder / "sliced.onnx"

        if self._agree(sliced, {group.name: np.arange(1, group.size, 2) for group in self.graph.prunable_groups}):
            return sliced
        log.info("channels cannot be cut out of the ONNX file: each pruning is exported, which takes longer")
        return self.exported

    def _agree(self, sliced: Deploy, kept: Kept) -> bool:
        """Whether a sliced deployment gives what the exported one does."""
        outputs = []
        for name, deploy in (("exported", self.exported), ("sliced", sliced)):
            folder = self._scratch / f"check-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                session = open_session("onnxruntime", deploy(kept, folder), threads=1)
                outputs.append(prediction(session, self._config)()[0])
            except Exception as error:  # ONNX Runtime has no base of its own for what it does not load
                if name == "exported":
                    raise
                log.info("the sliced file does not load: %s", str(error).strip().splitlines()[-1:])
                return False
        expected, found = outputs
        if found.shape != expected.shape:
            return False
        return bool(np.isclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()).mean() >= 0.999)


for timed_stage in (profile, prune_latency):
    timed_stage.depends(lambda config: machine_identity())
    timed_stage.check(check_order)
prune_latency.check(check_pruning)
prune_latency.check_network(check_ratio)
