"""analyze: dataset, checkpoint, importance -> sensitivity. How much mIoU goes when one group loses channels."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from segslim.channels import ChannelGraph, Importance, Sensitivity
from segslim.channels.sensitivity import masked_model, measure
from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.engines import open_session
from segslim.evaluation import LabelCounts, mean_iou
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import Batches, batches, evenly, require_labels, usable_pairs
from segslim.stages.shared.pruning import check_pruning
from segslim.stages.shared.sessions import operator_rules, threads, write_class_ids_graph


@stage(
    does="measuring sensitivity",
    gives=Sensitivity,
    reads=[
        *("dataset.size", "dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index"),
        *("compress.rules", "compress.analysis"),
    ],
    ignores=["dataset.source", "dataset.on_error", "engine.threads"],
    packages=PADDLE,
    version=2,
)
def analyze(
    dataset: Dataset, checkpoint: Checkpoint, importance: Importance, config: Config, workspace: Workspace
) -> Sensitivity:
    """Gives the loss of each group at each of compress.analysis.ratios, on images spread over the validation list."""
    network = checkpoint.network()
    graph = checkpoint.channel_graph(config.dataset.size, operator_rules(config))
    write_class_ids_graph(network, config, workspace.scratch / "network.onnx")
    pairs = usable_pairs(config, dataset, "val")
    chosen = evenly(len(pairs), config.compress.analysis.images)  # type: ignore[union-attr]
    images = list(batches(config, [pairs[i] for i in chosen]))  # read once, judged by often

    def progress(done: int, total: int) -> None:
        workspace.progress("one group at a time", done, total)

    found = sensitivity_of(workspace.scratch, graph, importance, config, images, progress)
    errors = [error for curve in found.errors.values() for error in curve.values()]
    typical = float(np.median(errors)) if errors else 0.0
    workspace.summarize(
        f"{len(found.losses)} groups, {len(errors)} prunings on {len(chosen)} images, a loss to within {typical:.4f}"
    )
    return found


def sensitivity_of(
    folder: Path,
    graph: ChannelGraph,
    scores: Importance,
    config: Config,
    images: Batches,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Loss of mIoU for each group that is scored and each of config.compress.analysis.ratios.

    `folder`/network.onnx gives class ids; its channels are masked by inputs, so that no pruning needs another export.
    Each core evaluates prunings of its own by one thread: for networks of this size that takes half the time of two
    threads on each.
    """
    masked = masked_model(folder / "network.onnx", folder / "masked.onnx", graph)
    session = open_session("onnxruntime", folder / "masked.onnx", threads=1)

    dataset, name = config.dataset, session.input_names[0]
    labelled = [
        (image, LabelCounts.from_label(label, image.shape[2:], dataset.num_classes, dataset.ignore_index))
        for image, (label,) in images
    ]

    def mious(removed: Mapping[str, np.ndarray]) -> np.ndarray:
        masks = masked.masks(removed)
        counts = np.array([label.confusion(session.run({name: image, **masks})[0][0]) for image, label in labelled])
        return mean_iou(np.stack([counts.sum(0), *(counts.sum(0) - counts)]))

    ratios = config.compress.analysis.ratios  # type: ignore[union-attr]
    return measure(graph, scores, ratios, mious, progress, workers=threads(config))


analyze.check(check_pruning)


@analyze.check
def check_labels(config: Config) -> None:
    """Raises UserError where there are no labels by which a loss of mIoU could be measured."""
    require_labels(config, "sensitivities are losses of mIoU; give compress=prune_post")
