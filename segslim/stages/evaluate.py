"""evaluate: dataset, deployment, engine -> metrics. On the deployed file, in the engine that was selected for it."""

import dataclasses
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.evaluation.metrics import class_counts
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared.images import batches, usable_pairs
from segslim.stages.shared.sessions import open_selected, quality
from segslim.stages.shared.sessions import score as score_session

IMAGES = "images.npz"


@stage(
    gives="metrics",
    reads=["dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index", "dataset.labelled"],
    ignores=["dataset.source", "dataset.on_error", "engine.threads"],
    version=2,
)
def evaluate(
    dataset: Dataset, deployment: Deployment, engine: dict[str, Any], config: Config, workspace: Workspace
) -> dict[str, Any]:
    """Gives {miou, class_iou, accuracy, kappa, dice} over all validation images; without labels {agreement: {miou,
    class_iou, equal_pixels}}, against the dense network's predictions.

    Beside it, IMAGES holds `class_counts` of each image, N,3,C: what an interval of the mIoU is made of.
    """
    pairs = usable_pairs(config, dataset, "val")
    images: list[np.ndarray] = []
    metrics = score_session(
        open_selected(engine, deployment, config),
        config,
        batches(config, pairs),
        lambda done: workspace.progress("evaluating", done, len(pairs)),
        lambda confusion: images.append(class_counts(confusion)),
    )
    np.savez_compressed(workspace.artifact / IMAGES, counts=np.stack(images))
    if config.dataset.labelled:
        workspace.summarize(f"mIoU {metrics.miou:.4f} on {len(pairs)} images")
        return dataclasses.asdict(metrics)
    equal = metrics.accuracy  # what is right is what the dense network predicts
    workspace.summarize(f"{equal:.2%} of the pixels equal to the dense network's, {quality(config)} {metrics.miou:.4f}")
    return {"agreement": {"miou": metrics.miou, "class_iou": metrics.class_iou, "equal_pixels": equal}}
