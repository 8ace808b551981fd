"""score: dataset, checkpoint -> importance. What each channel is worth, by compress.criterion."""

from collections.abc import Iterator
from typing import Any

from threadpoolctl import threadpool_limits

from segslim.channels import ChannelGraph, Importance
from segslim.channels import score as score_channels
from segslim.channels.importance import criterion_of, unskipped_groups
from segslim.config import Config
from segslim.data.source import Dataset
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import require_code, weights_of
from segslim.pipeline.fingerprint import config_slice
from segslim.pipeline.stage import Workspace, stage
from segslim.plugins import is_path
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import require_labels, transforms, unlabelled_images, usable_pairs
from segslim.stages.shared.pruning import check_pruning
from segslim.stages.shared.sessions import logits_graph, operator_rules

#: What gradients, those of drawn labels, and activations depend on. The fingerprint holds what the criterion takes.
GRADIENTS = (
    *("seed", "device", "model.loss", "dataset.ignore_index", "retrain.batch_size", "compress.taylor"),
    "dataset.train_transforms",
)
DRAWN = ("seed", "device", "compress.fisher", "dataset.val_transforms")
ACTIVATIONS = ("seed", "compress.reconstruct", "dataset.val_transforms")


@stage(
    does="ranking channels",
    gives=Importance,
    reads=["dataset.size", "compress.rules", "compress.criterion", "compress.skip"],
    ignores=[*GRADIENTS, "compress.fisher", *ACTIVATIONS[1:], "dataset.source", "dataset.on_error", "num_workers"],
    packages=PADDLE,
)
def score(dataset: Dataset, checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Importance:
    """Gives one number for each channel of each group, without the groups of compress.skip."""
    criterion = str(config.compress.criterion)
    chosen = criterion_of(criterion)
    network = checkpoint.network()
    graph = checkpoint.channel_graph(config.dataset.size, operator_rules(config))
    if chosen.by_activations:
        scores = _by_activations(network, graph, dataset, config, workspace)
    else:
        gradients = _gradients(network, dataset, config, workspace) if chosen.by_gradient else ()
        scores = score_channels(criterion, graph, weights_of(network), gradients, config.seed, config.compress.skip)
    skipped = len(graph.prunable_groups) - len(scores)
    channels = sum(map(len, scores.values()))
    workspace.summarize(f"{channels} channels in {len(scores)} groups" + (f", {skipped} skipped" if skipped else ""))
    return scores


def _by_activations(
    network: Any, graph: ChannelGraph, dataset: Dataset, config: Config, workspace: Workspace
) -> Importance:
    """By the criterion obc, on the images of compress.reconstruct."""
    from segslim.channels.obc import obc_importance

    options = config.compress.reconstruct
    assert options is not None  # or check_pruning would have refused
    groups = unskipped_groups(graph, config.compress.skip)
    model = logits_graph(network, config, workspace.scratch / "logits.onnx")
    images = unlabelled_images(config, dataset, options.images)
    # one thread, of numpy's too: another number sums in another order, and the same command gives the same bits
    with threadpool_limits(limits=1):
        scores = obc_importance(
            groups,
            graph.tensors,
            model,
            images,
            ridge=options.ridge,
            positions=options.positions,
            seed=config.seed,
            progress=lambda done, total: workspace.progress("layers", done, total),
        )
    return Importance(scores)


def _gradients(network: Any, dataset: Dataset, config: Config, workspace: Workspace) -> Iterator[Any]:
    """Of each of compress.taylor.batches batches, as retraining will see them; of drawn labels, those of the images and
    draws of compress.fisher.
    """
    from segslim.data.loading import training_loader
    from segslim.networks.network import weights_read_as_data
    from segslim.training.losses import build_losses, fisher_gradients, gradients

    if criterion_of(str(config.compress.criterion)).drawn_labels:
        options = config.compress.fisher
        assert options is not None  # or check_pruning would have refused
        images = unlabelled_images(config, dataset, options.images)
        drawn = fisher_gradients(network, images, options.draws, config.seed, config.device)
        for done, found in enumerate(drawn, start=1):
            workspace.progress("gradients", done, len(images) * options.draws)
            yield found
        return
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
    losses = weights_read_as_data()(build_losses)(config.model.loss, ignore_index=config.dataset.ignore_index)
    for done, found in enumerate(gradients(network, batches, losses, config.device), start=1):
        workspace.progress("gradients", done, count)
        yield found


@score.depends
def training_data(config: Config) -> dict[str, Any]:
    """How training data is made, for a criterion that takes gradients; the seed, for one that draws."""
    criterion = str(config.compress.criterion)
    chosen = criterion_of(criterion)
    if chosen.by_activations:
        return config_slice(config, ACTIVATIONS)
    drawn = ("seed",) if criterion == "random" or is_path(criterion) else ()
    return config_slice(config, DRAWN if chosen.drawn_labels else GRADIENTS if chosen.by_gradient else drawn)


score.check(check_pruning)


@score.check
def check_gradients(config: Config) -> None:
    """Raises UserError where the criterion takes gradients, and the network is an exported graph."""
    criterion = str(config.compress.criterion)
    if criterion_of(criterion).by_gradient:
        require_code(config.model.network, f"compress.criterion={criterion} takes gradients; give obc, which does not")


@score.check
def check_labels(config: Config) -> None:
    """Raises UserError where the criterion takes the gradients of a loss, and there are no labels for one."""
    criterion = str(config.compress.criterion)
    chosen = criterion_of(criterion)
    if chosen.by_gradient and not chosen.drawn_labels:
        require_labels(config, f"compress.criterion={criterion} takes the gradients of their loss; give fisher or obc")
