"""evaluate: dataset, deployment, engine -> metrics. On the deployed file, in the engine that was selected for it."""

import dataclasses
from typing import Any

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared.images import batches, usable_pairs
from segslim.stages.shared.sessions import open_selected, quality
from segslim.stages.shared.sessions import score as score_session


@stage(
    gives="metrics",
    reads=["dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index", "dataset.labelled"],
    ignores=["dataset.source", "dataset.on_error", "engine.threads"],
)
def evaluate(
    dataset: Dataset, deployment: Deployment, engine: dict[str, Any], config: Config, workspace: Workspace
) -> dict[str, Any]:
    """Gives {miou, class_iou, accuracy, kappa, dice} over all validation images; without labels {agreement: {miou,
    class_iou, equal_pixels}}, against the dense network's predictions.
    """
    pairs = usable_pairs(config, dataset, "val")
    metrics = score_session(
        open_selected(engine, deployment, config),
        config,
        batches(config, pairs),
        lambda done: workspace.progress("evaluating", done, len(pairs)),
    )
    if config.dataset.labelled:
        workspace.summarize(f"mIoU {metrics.miou:.4f} on {len(pairs)} images")
        return dataclasses.asdict(metrics)
    equal = metrics.accuracy  # what is right is what the dense network predicts
    workspace.summarize(f"{equal:.2%} of the pixels equal to the dense network's, {quality(config)} {metrics.miou:.4f}")
    return {"agreement": {"miou": metrics.miou, "class_iou": metrics.class_iou, "equal_pixels": equal}}
