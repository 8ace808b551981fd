"""data: () -> dataset. Draws what has to be drawn, and checks every image and label before training on them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.data.checks import check_pairs
from segslim.pipeline.stage import Workspace
from segslim.stages.before import source


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes summary.json {split: pairs, sizes, pixels of each class}, beside the files of a data set that is drawn."""
    data = source(config)
    data.prepare(workspace.artifact, lambda done, total: workspace.progress("drawing", done, total))
    summary = {
        split: check_pairs(
            data.pairs(workspace.artifact, split),
            config.dataset.num_classes,
            config.dataset.ignore_index,
            progress=lambda done, total: workspace.progress("checking", done, total),
        )
        for split in ("train", "val")
    }
    plain = {split: dataclasses.asdict(found) for split, found in summary.items()}
    (workspace.artifact / "summary.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
    return ", ".join(f"{found.pairs} {split}" for split, found in summary.items()) + " images"
