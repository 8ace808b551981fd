"""pseudo_label: dataset without labels, the first checkpoint -> the dataset with the dense network's predictions."""

from dataclasses import replace

import numpy as np
from PIL import Image

from segslim.colours import palette
from segslim.config import Config
from segslim.data.layouts import pseudo_label as label_file
from segslim.data.source import SPLITS, Dataset
from segslim.deployment.engines import open_session
from segslim.evaluation import resize_nearest
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import NAMES, PADDLE
from segslim.stages.shared.images import batches, usable_pairs
from segslim.stages.shared.sessions import threads, write_class_ids_graph


@stage(
    does="predicting labels",
    gives=Dataset,
    reads=["dataset.size", "dataset.val_transforms", "dataset.num_classes"],
    ignores=["dataset.source", "dataset.on_error", "engine.threads", *NAMES],
    packages=(*PADDLE, "paddle2onnx", "onnx", "onnxruntime"),
)
def pseudo_label(dataset: Dataset, baseline_checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Dataset:
    """Gives the data set in which what the dense network predicts, at each image's own size, stands for the labels.

    So all that is judged by labels is judged by agreement with the dense network (Lee, Pseudo-label, 2013).
    """
    from segslim.data.contact_sheet import contact_sheet

    file = workspace.scratch / "network.onnx"
    write_class_ids_graph(baseline_checkpoint.network(), config, file)
    session = open_session("onnxruntime", file, threads=threads(config))
    pairs = {split: usable_pairs(config, dataset, split) for split in SPLITS}
    listed = [pair for split in SPLITS for pair in pairs[split]]
    for done, (pair, (image, sizes)) in enumerate(zip(listed, batches(config, listed), strict=True), start=1):
        ids = resize_nearest(session.run({session.input_names[0]: image})[0][0], *sizes[0].shape)
        target = label_file(workspace.artifact, pair)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids.astype(np.uint8 if config.dataset.num_classes <= 256 else np.uint16)).save(target)
        workspace.progress("predicting", done, len(listed))
    labelled = replace(dataset, folder=workspace.artifact)
    colours = palette(config.dataset.num_classes, config.dataset.colours)
    predicted = {split: usable_pairs(config, labelled, split) for split in SPLITS}
    contact_sheet(predicted, colours, config.dataset.classes).save(workspace.artifact / "samples.png")
    workspace.summarize(f"the dense network's predictions of {len(listed)} images stand for labels")
    return labelled
