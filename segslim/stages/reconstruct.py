"""reconstruct: dataset, checkpoint, the first one -> checkpoint whose weights are solved for, without training."""

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from segslim.channels import Channels
from segslim.config import Config
from segslim.data.source import Dataset
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import unlabelled_images
from segslim.stages.shared.sessions import logits_graph, operator_rules

NOTHING_PRUNED = "compress.stages: reconstruct solves for what a pruning left: put prune before it"


@stage(
    does="solving for weights",
    gives=Checkpoint,
    reads=["seed", "dataset.size", "dataset.val_transforms", "compress.rules", "compress.reconstruct"],
    ignores=["dataset.source", "dataset.on_error"],
    packages=(*PADDLE, "paddle2onnx", "onnx", "onnxruntime", "numpy"),
    version=2,
)
def reconstruct(
    dataset: Dataset, checkpoint: Checkpoint, baseline_checkpoint: Checkpoint, config: Config, workspace: Workspace
) -> Checkpoint:
    """Gives the pruned checkpoint whose layers reproduce those of the first one, as far as their inputs allow.

    It begins with the first one's weights of what is left, whatever an earlier step made of them. No label is used. It
    tells of each layer the relative error before and after (`reconstruction`).
    """
    from segslim.channels.reconstruction import reconstruct as solve

    options = config.compress.reconstruct
    assert options is not None  # or check_options would have refused
    if checkpoint.channels is None or checkpoint.channels == baseline_checkpoint.channels:
        raise UserError(NOTHING_PRUNED)
    tensors = baseline_checkpoint.channel_graph(config.dataset.size, operator_rules(config)).tensors
    kept = kept_of(checkpoint.channels, baseline_checkpoint.channels)
    pruned = checkpoint.with_weights(left_of(baseline_checkpoint.weights, kept))
    # one thread, of numpy's too: another number sums in another order, and the same command gives the same bits
    with threadpool_limits(limits=1):
        solved = solve(
            logits_graph(baseline_checkpoint.network(), config, workspace.scratch / "dense.onnx"),
            logits_graph(pruned.network(), config, workspace.scratch / "pruned.onnx"),
            {tensors[name]: axes for name, axes in kept.items() if name in tensors},
            unlabelled_images(config, dataset, options.images),
            ridge=options.ridge,
            positions=options.positions,
            seed=config.seed,
            tensors=tensors,
            progress=lambda done, total: workspace.progress("layers", done, total),
        )
    layers = {tensor: name for name, tensor in tensors.items()}
    weights = {name: solved.weights.get(tensors.get(name, ""), old) for name, old in pruned.weights.items()}
    errors = {layers[tensor]: astuple(error) for tensor, error in solved.errors.items()}
    better = sum(1 for _, _, left in errors.values() if not left)
    if errors:
        workspace.summarize(f"{better} of {len(errors)} layers solved for, {len(errors) - better} left as they were")
    else:
        workspace.summarize("no layer solved for: none has a weight of its own")
    return checkpoint.with_weights(weights, reconstruction=errors)


def left_of(weights: Mapping[str, np.ndarray], kept: Mapping[str, Mapping[int, list[int]]]) -> dict[str, np.ndarray]:
    """Dense weights without the channels that went."""
    left = dict(weights)
    for name, axes in kept.items():
        for axis, indices in axes.items():
            left[name] = left[name].take(indices, axis)
    return left


def kept_of(channels: Channels, before: Channels | None) -> Mapping[str, Mapping[int, list[int]]]:
    """What is left of each parameter of a network of which `before` was left, by its indices there."""
    if before is None:
        return channels.kept
    earlier: dict[Any, dict[int, int]] = {
        (name, axis): {index: position for position, index in enumerate(indices)}
        for name, axes in before.kept.items()
        for axis, indices in axes.items()
    }
    return {
        name: {axis: [earlier.get((name, axis), {}).get(i, i) for i in indices] for axis, indices in axes.items()}
        for name, axes in channels.kept.items()
    }


@reconstruct.check
def check_options(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError where nothing was pruned before, what was pruned is quantized, or a key is missing."""
    if "prune" not in earlier:
        raise UserError(NOTHING_PRUNED)
    trained = next((name for name in ("retrain", "distil") if name in earlier), None)
    if trained:
        raise UserError(f"compress.stages: reconstruct begins with the first network's weights: put {trained} after it")
    if "quantize" in earlier:
        raise UserError("compress.stages: reconstruct changes the weights that quantize has measured: put it before")
    if config.compress.reconstruct is None:
        raise UserError("compress.reconstruct has no value; conf/compress/prune.yaml has it")


@reconstruct.check_network
def check_images(images: int) -> None:
    """Raises UserError where there are too few training images."""
    if images < 8:
        raise UserError(
            f"dataset: {images} training images are too few to reconstruct on; give at least 8, or leave reconstruct"
            " out of compress.stages"
        )
