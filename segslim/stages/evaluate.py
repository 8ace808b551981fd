"""evaluate: dataset, deployment, engine -> metrics. On the deployed file, in the engine that was selected for it."""

from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.pipeline.stage import Workspace
from segslim.records import METRICS, write_record
from segslim.stages.shared.pairs import usable_pairs
from segslim.stages.shared.sessions import open_selected
from segslim.stages.shared.validation import batches, score


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes metrics.json {miou, class_iou, accuracy, kappa, dice}."""
    pairs = usable_pairs(config, inputs["dataset"], "val")
    session = open_selected(inputs["engine"], inputs["deployment"], config)
    scores = score(
        session,
        config,
        batches(config, pairs),
        lambda done: workspace.progress("evaluating", done, len(pairs)),
    )
    write_record(workspace.artifact, METRICS, scores)
    return f"mIoU {scores.miou:.4f} on {len(pairs)} images"
