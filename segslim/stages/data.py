"""data: () -> dataset. Draws what has to be drawn, and checks every image and label before training on them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from segslim.colours import palette
from segslim.config import Config
from segslim.data.checks import check_pairs
from segslim.data.sheet import contact_sheet
from segslim.data.source import SPLITS
from segslim.pipeline.stage import Workspace
from segslim.stages.before import source


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes summary.json {split: pairs, sizes, pixels of each class} and samples.png, beside the files of a data set
    that is drawn or downloaded."""
    data = source(config)
    data.prepare(workspace.artifact, lambda done, total: workspace.progress("preparing", done, total))
    pairs = {split: data.pairs(workspace.artifact, split) for split in SPLITS}
    summary = {
        split: check_pairs(
            pairs[split],
            config.dataset.num_classes,
            config.dataset.ignore_index,
            progress=lambda done, total: workspace.progress("checking", done, total),
        )
        for split in SPLITS
    }
    plain = {split: dataclasses.asdict(found) for split, found in summary.items()}
    colours = palette(config.dataset.num_classes, config.dataset.colours)
    contact_sheet(pairs, colours, config.dataset.classes).save(workspace.artifact / "samples.png")
    (workspace.artifact / "summary.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
    return ", ".join(f"{found.pairs} {split}" for split, found in summary.items()) + " images"
