"""score: dataset, checkpoint -> scores. What each channel is worth, by compress.criterion."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segslim.channels.criteria import Weights, criterion_of
from segslim.channels.scores import save_scores, score
from segslim.config import Config
from segslim.data.loading import training_loader
from segslim.networks.checkpoint import load_checkpoint
from segslim.networks.weights import weights_of
from segslim.pipeline.stage import Workspace
from segslim.stages.shared.graphs import channel_graph
from segslim.stages.shared.pairs import usable_pairs
from segslim.stages.shared.transforms import transforms
from segslim.training.losses import build_losses, gradients


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes scores.safetensors {group: one number for each of its channels}, without the groups of compress.skip."""
    compress = config.compress
    assert compress.criterion is not None  # check_pruning saw to it
    network = load_checkpoint(inputs["checkpoint"]).network
    graph = channel_graph(network, config)
    by_gradient = criterion_of(compress.criterion).by_gradient
    gradients = _gradients(network, inputs["dataset"], config, workspace) if by_gradient else ()
    scores = score(compress.criterion, graph, weights_of(network), gradients, config.seed, compress.skip)
    save_scores(scores, workspace.artifact)
    skipped = len(graph.prunable_groups) - len(scores)
    channels = sum(map(len, scores.values()))
    return f"{channels} channels in {len(scores)} groups" + (f", {skipped} skipped" if skipped else "")


def _gradients(network: Any, dataset: Path, config: Config, workspace: Workspace) -> Iterator[Weights]:
    """Of each of compress.taylor.batches batches, as retraining will see them."""
    assert config.compress.taylor is not None  # check_pruning saw to it
    count = config.compress.taylor.batches
    batches = training_loader(
        usable_pairs(config, dataset, "train"),
        transforms(config, "train"),
        batch_size=config.retrain.batch_size,
        seed=config.seed,
        start_iter=0,
        iters=count,
        num_workers=config.num_workers,
    )
    losses = build_losses(config.model.loss)
    for done, found in enumerate(gradients(network, batches, losses, config.device), start=1):
        workspace.progress("gradients", done, count)
        yield found
