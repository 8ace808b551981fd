"""data: () -> dataset. Draws what has to be drawn, and checks every image and label before training on them."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config
from segslim.data import Pair
from segslim.data.checks import check_pairs
from segslim.data.contact_sheet import contact_sheet
from segslim.data.source import SPLITS
from segslim.errors import UserError
from segslim.pipeline.stage import Workspace
from segslim.records import SKIPPED, SUMMARY, write_record
from segslim.stages.shared.pairs import listed_pairs, source, usable_pairs

log = logging.getLogger(__name__)


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes summary.json {split: pairs, sizes, pixels of each class}, samples.png, and skipped.json {split: {position
    in the list: why}} of what is left out, beside the files of a data set that is drawn or downloaded.
    """
    source(config).prepare(workspace.artifact, lambda done, total: workspace.progress("preparing", done, total))
    summary, skipped = {}, {}
    for split in SPLITS:
        faults: dict[int, str] = {}
        summary[split] = _check(config, listed_pairs(config, workspace.artifact, split), workspace, faults)
        skipped[split] = faults
        if not summary[split]["pairs"]:
            raise UserError(f"dataset.on_error=skip leaves no {split} image: {next(iter(faults.values()))}")
    write_record(workspace.artifact, SKIPPED, skipped)
    pairs = {split: usable_pairs(config, workspace.artifact, split) for split in SPLITS}
    colours = palette(config.dataset.num_classes, config.dataset.colours)
    contact_sheet(pairs, colours, config.dataset.classes).save(workspace.artifact / "samples.png")
    write_record(workspace.artifact, SUMMARY, summary)
    counts = ", ".join(f"{found['pairs']} {split}" for split, found in summary.items()) + " images"
    left_out = sum(map(len, skipped.values()))
    return f"{counts}, {left_out} skipped" if left_out else counts


def _check(config: Config, pairs: list[Pair], workspace: Workspace, faults: dict[int, str]) -> dict[str, Any]:
    """What is in the pairs; why some of them are left out goes into `faults`."""

    def skip(at: int, error: UserError) -> None:
        log.warning("skipped: %s", error)
        faults[at] = str(error)

    found = check_pairs(
        pairs,
        config.dataset.num_classes,
        config.dataset.ignore_index,
        progress=lambda done, total: workspace.progress("checking", done, total),
        on_fault=skip if config.dataset.on_error == "skip" else None,
    )
    return dataclasses.asdict(found)
