"""prune: checkpoint, scores, sensitivity where it was measured -> checkpoint of fewer channels."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segslim.channels import ChannelGraph, Sensitivity, allocate, prune
from segslim.channels.importance import Importance
from segslim.channels.latency import LatencyCost, reach
from segslim.config import Config
from segslim.networks.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.records import GROUPS, write_record
from segslim.stages.shared.graphs import channel_graph
from segslim.stages.shared.prunings import Prunings

Channels = Mapping[str, np.ndarray]


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint whose FLOPs are less than those of the first checkpoint by compress.ratio, and groups.json
    {group: {channels, kept}} of the groups that were scored.
    """
    given = load_checkpoint(inputs["checkpoint"])
    graph = channel_graph(given.network, config)
    whole = graph.flops()
    if inputs["baseline checkpoint"] != inputs["checkpoint"]:
        whole = channel_graph(load_checkpoint(inputs["baseline checkpoint"]).network, config).flops()
    kept = _allocate(inputs, config, graph, total=whole)
    _save(workspace, given, graph, kept)
    return f"{graph.flops(kept) / whole - 1:+.1%} FLOPs"


def to_latency(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint that is faster than the first one by compress.ratio, in the engine selected for that, and
    groups.json as `run` does.
    """
    assert config.compress.ratio is not None  # check_pruning saw to it
    prunings = Prunings(inputs, config, workspace.scratch)
    cost = LatencyCost.load(inputs["costs"])
    idle = set(cost.savings) - set(cost.saving_groups())  # whoever saves no time loses no channels
    options = config.benchmark

    def allocated(cost: LatencyCost) -> Channels:
        return _allocate(inputs, config, prunings.graph, spared=idle, cost=cost, total=1.0, cost_name="latency")

    def measure(kept: Any) -> list[float]:
        return prunings.measure(kept, prunings.exported, options.warmup, options.iters)

    kept, gone = reach(config.compress.ratio, cost, allocated, measure)
    _save(workspace, prunings.given, prunings.graph, kept)
    flops = prunings.graph.flops(kept) / prunings.graph.flops() - 1
    return f"{-gone:+.1%} latency in {prunings.engine}, {flops:+.1%} FLOPs"


def _allocate(
    inputs: Mapping[str, Path], config: Config, graph: ChannelGraph, spared: Collection[str] = (), **cost: Any
) -> Channels:
    compress = config.compress
    assert compress.ratio is not None  # check_pruning saw to it
    scores = Importance.load(inputs["scores"])
    return allocate(
        graph,
        {group: score for group, score in scores.items() if group not in spared},
        Sensitivity.load(inputs["sensitivity"]) if "sensitivity" in inputs else None,
        compress.ratio,
        compress.align,
        allocation=compress.allocation,
        **cost,
    )


def _save(workspace: Workspace, given: LoadedCheckpoint, graph: ChannelGraph, kept: Channels) -> None:
    channels = prune(given.network, graph, kept, given.channels)
    save_checkpoint(workspace.artifact, given.network, given.model, channels)
    counts = {g.name: {"channels": g.size, "kept": len(kept[g.name])} for g in graph.groups if g.name in kept}
    write_record(workspace.artifact, GROUPS, counts)
