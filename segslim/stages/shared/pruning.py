"""What a pruning keeps, and what is known of it before any work."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from segslim.channels import ChannelGraph, Importance, Sensitivity, allocate
from segslim.channels.allocation import check_reachable
from segslim.channels.importance import criterion_of, unskipped_groups
from segslim.config import Config
from segslim.errors import UserError
from segslim.networks.checkpoint import PRUNED_AFTER_QUANTIZE, Checkpoint
from segslim.networks.network import image_channels
from segslim.plugins import import_path
from segslim.stages.shared.sessions import operator_rules

Kept = Mapping[str, np.ndarray]


def channels_to_keep(
    graph: ChannelGraph,
    importance: Importance,
    sensitivity: Sensitivity | None,
    config: Config,
    total: float,
) -> Kept:
    """By compress.ratio, allocation and align: {group: channels to keep}. total: the FLOPs that ratio is a share of."""
    compress = config.compress
    return allocate(
        graph,
        importance,
        sensitivity,
        compress.ratio or 0.0,  # check_pruning refuses a strategy without one
        compress.align,
        allocation=compress.allocation,
        total=total,
    )


def pruned(checkpoint: Checkpoint, graph: ChannelGraph, kept: Kept) -> Checkpoint:
    """The pruned checkpoint, which tells of each scored group how many channels it had and kept."""
    counts = {g.name: {"channels": g.size, "kept": len(kept[g.name])} for g in graph.groups if g.name in kept}
    return checkpoint.pruned(graph, kept, groups=counts)


def check_pruning(config: Config) -> None:
    """Raises UserError when a key that pruning needs is missing or has no meaning."""
    compress = config.compress
    needed = ["ratio", "criterion", "allocation"]
    if compress.criterion is not None:
        chosen = criterion_of(compress.criterion)
        needed += ["fisher" if chosen.drawn_labels else "taylor"] if chosen.by_gradient else []
        needed += ["reconstruct"] if chosen.by_activations else []
    if compress.allocation == "equal_loss":
        needed.append("analysis")
    for key in needed:
        if getattr(compress, key) is None:
            raise UserError(f"compress.{key} has no value: strategy '{compress.name}' prunes, give compress.{key}=...")
    for kind, path in compress.rules.items():
        import_path(path, f"compress.rules.{kind}")


def check_order(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError where what is pruned was quantized before, or its sensitivity was not measured."""
    if "quantize" in earlier:
        raise UserError(PRUNED_AFTER_QUANTIZE)
    if config.compress.allocation == "equal_loss" and "analyze" not in earlier:
        raise UserError(
            "compress.stages: put 'analyze' before each 'prune', since compress.allocation is equal_loss, or give"
            " compress.allocation=global or uniform"
        )


def check_ratio(network: Any, config: Config) -> None:
    """Raises UserError where this network cannot lose compress.ratio, or has no layer that compress.skip names."""
    compress = config.compress
    width, height = config.dataset.size
    graph = ChannelGraph.trace(network, (1, image_channels(network), height, width), operator_rules(config))
    importance: Any = {group.name: np.zeros(group.size) for group in unskipped_groups(graph, compress.skip)}
    if compress.ratio is not None:
        # in a second step, a global allocation may take of what it had to leave in the first
        limited = compress.allocation == "global" and len(compress.schedule) == 1
        check_reachable(graph, importance, compress.ratio, "global" if limited else "uniform")
