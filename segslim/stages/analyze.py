"""analyze: dataset, checkpoint, scores -> sensitivity. How much mIoU goes when one group loses some of its channels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segslim.channels import ChannelGraph, Sensitivity
from segslim.channels.masking import masked_model
from segslim.channels.scores import Scores, load_scores
from segslim.channels.sensitivity import measure
from segslim.config import Config
from segslim.deployment.engines import open_session
from segslim.evaluation import LabelCounts, mean_iou
from segslim.networks.checkpoint import load_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.stages.shared.graphs import channel_graph, write_class_ids_graph
from segslim.stages.shared.pairs import evenly, usable_pairs
from segslim.stages.shared.sessions import threads
from segslim.stages.shared.validation import Batches, batches


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes sensitivity.json, measured on images spread evenly over the validation list."""
    assert config.compress.analysis is not None  # check_pruning saw to it
    network = load_checkpoint(inputs["checkpoint"]).network
    graph = channel_graph(network, config)
    pairs = usable_pairs(config, inputs["dataset"], "val")
    chosen = evenly(len(pairs), config.compress.analysis.images)
    images = list(batches(config, [pairs[i] for i in chosen]))  # read once, judged by often

    def progress(done: int, total: int) -> None:
        workspace.progress("one group at a time", done, total)

    scores = load_scores(inputs["scores"])
    found = sensitivity_of(network, graph, scores, config, images, workspace.scratch, progress)
    found.save(workspace.artifact)
    errors = [error for curve in found.errors.values() for error in curve.values()]
    typical = float(np.median(errors)) if errors else 0.0
    return f"{len(found.losses)} groups, {len(errors)} prunings on {len(chosen)} images, losses +-{typical:.4f}"


def sensitivity_of(
    network: Any,
    graph: ChannelGraph,
    scores: Scores,
    config: Config,
    images: Batches,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Loss of mIoU for each group that is scored and each of config.compress.analysis.ratios.

    One graph is exported and its channels are masked by inputs, so that no pruning needs another. Each core evaluates
    prunings of its own by one thread: for networks of this size that takes half the time of two threads on each.
    """
    assert config.compress.analysis is not None
    write_class_ids_graph(network, config, scratch / "network.onnx")
    masked = masked_model(scratch / "network.onnx", scratch / "masked.onnx", graph)
    session = open_session("onnxruntime", scratch / "masked.onnx", threads=1)

    dataset, name = config.dataset, session.input_names[0]
    labelled = [
        (image, LabelCounts.of(label, image.shape[2:], dataset.num_classes, dataset.ignore_index))
        for image, (label,) in images
    ]

    def mious(removed: Mapping[str, np.ndarray]) -> np.ndarray:
        masks = masked.masks(removed)
        counts = np.array([label.confusion(session.run({name: image, **masks})[0][0]) for image, label in labelled])
        return mean_iou(np.stack([counts.sum(0), *(counts.sum(0) - counts)]))

    return measure(graph, scores, config.compress.analysis.ratios, mious, progress, workers=threads(config))
