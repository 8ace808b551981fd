"""score: dataset, checkpoint -> importance. What each channel is worth, by compress.criterion."""

from collections.abc import Iterator
from typing import Any

from segslim.channels import Importance
from segslim.channels import score as score_channels
from segslim.channels.importance import criterion_of
from segslim.config import Config
from segslim.data.source import Dataset
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import weights_of
from segslim.pipeline.fingerprint import config_slice
from segslim.pipeline.stage import Workspace, stage
from segslim.plugins import is_path
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import transforms, usable_pairs
from segslim.stages.shared.pruning import check_pruning
from segslim.stages.shared.sessions import operator_rules

#: What gradients depend on: how training data is made. The fingerprint holds them where the criterion takes gradients.
GRADIENTS = ("seed", "device", "model.loss", "retrain.batch_size", "compress.taylor", "dataset.train_transforms")


@stage(
    gives=Importance,
    reads=["dataset.size", "compress.rules", "compress.criterion", "compress.skip"],
    ignores=[*GRADIENTS, "dataset.source", "dataset.on_error", "num_workers"],
    packages=PADDLE,
)
def score(dataset: Dataset, checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Importance:
    """Gives one number for each channel of each group, without the groups of compress.skip."""
    criterion = str(config.compress.criterion)
    network = checkpoint.network()
    graph = checkpoint.channel_graph(config.dataset.size, operator_rules(config))
    by_gradient = criterion_of(criterion).by_gradient
    gradients = _gradients(network, dataset, config, workspace) if by_gradient else ()
    scores = score_channels(criterion, graph, weights_of(network), gradients, config.seed, config.compress.skip)
    skipped = len(graph.prunable_groups) - len(scores)
    channels = sum(map(len, scores.values()))
    workspace.summarize(f"{channels} channels in {len(scores)} groups" + (f", {skipped} skipped" if skipped else ""))
    return scores


def _gradients(network: Any, dataset: Dataset, config: Config, workspace: Workspace) -> Iterator[Any]:
    """Of each of compress.taylor.batches batches, as retraining will see them."""
    from segslim.data.loading import training_loader
    from segslim.training.losses import build_losses, gradients

    count = config.compress.taylor.batches  # type: ignore[union-attr]
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


@score.depends
def training_data(config: Config) -> dict[str, Any]:
    """How training data is made, for a criterion that takes gradients; the seed, for one that draws."""
    criterion = str(config.compress.criterion)
    drawn = ("seed",) if criterion == "random" or is_path(criterion) else ()
    return config_slice(config, GRADIENTS if criterion_of(criterion).by_gradient else drawn)


score.check(check_pruning)
