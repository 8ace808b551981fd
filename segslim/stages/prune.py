"""prune: checkpoint, scores, sensitivity where it was measured -> checkpoint of fewer channels."""

import json
from collections.abc import Mapping
from pathlib import Path

from segslim.channels import ChannelGraph, Sensitivity, shrink
from segslim.channels.budget import allocate_aligned
from segslim.channels.scores import load_scores
from segslim.config import Config
from segslim.networks.checkpoint import load_checkpoint, save_checkpoint
from segslim.pipeline.stage import Workspace


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint whose FLOPs are less than those of the first checkpoint by compress.ratio, and groups.json
    {group: {channels, kept}} of the groups that were scored.
    """
    compress = config.compress
    assert compress.ratio is not None  # check_pruning saw to it
    given = load_checkpoint(inputs["checkpoint"])
    graph = _graph(given.network, config)
    whole = graph.flops()
    if inputs["baseline checkpoint"] != inputs["checkpoint"]:
        whole = _graph(load_checkpoint(inputs["baseline checkpoint"]).network, config).flops()
    kept = allocate_aligned(
        graph,
        load_scores(inputs["scores"] / "scores.safetensors"),
        Sensitivity.load(inputs["sensitivity"] / "sensitivity.json") if "sensitivity" in inputs else None,
        compress.ratio,
        compress.align,
        allocation=compress.allocation,
        whole=whole,
    )
    channels = shrink(given.network, graph, kept, given.channels)
    save_checkpoint(workspace.artifact, given.network, given.model, channels)
    counts = {g.name: {"channels": g.size, "kept": len(kept[g.name])} for g in graph.groups if g.name in kept}
    (workspace.artifact / "groups.json").write_text(json.dumps(counts, indent=1), encoding="utf-8")
    return f"{graph.flops(kept) / whole - 1:+.1%} FLOPs"


def _graph(network: object, config: Config) -> ChannelGraph:
    width, height = config.dataset.size
    return ChannelGraph.trace(network, (1, 3, height, width))
