"""data: () -> dataset. Draws what has to be drawn, and checks every image and label before training on them."""

import dataclasses
import filecmp
import logging
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config
from segslim.data import Pair
from segslim.data.source import SPLITS, Dataset
from segslim.errors import UserError
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import NAMES
from segslim.stages.shared.images import listed_pairs, source

log = logging.getLogger(__name__)


@stage(
    gives=Dataset,
    reads=["dataset.source", "dataset.num_classes", "dataset.ignore_index"],
    # what is in the files counts, not where they are; and no colour of a picture is worth training again
    ignores=["dataset.source.root", "dataset.on_error", *NAMES],
)
def data(config: Config, workspace: Workspace) -> Dataset:
    """Gives the checked data set, and writes samples.png, a contact sheet, beside it."""
    from segslim.data.contact_sheet import contact_sheet

    source(config).prepare(workspace.artifact, lambda done, total: workspace.progress("preparing", done, total))
    dataset = Dataset(workspace.artifact)
    summary: dict[str, Any] = {}
    skipped: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        summary[split], skipped[split] = _check(config, listed_pairs(config, dataset, split), workspace)
        if not summary[split]["pairs"]:
            raise UserError(f"dataset.on_error=skip leaves no {split} image: {next(iter(skipped[split].values()))}")
    dataset = Dataset(workspace.artifact, summary, skipped)
    pairs = {split: dataset.usable(listed_pairs(config, dataset, split), split) for split in SPLITS}
    first, *others = pairs["train"]
    if others and all(filecmp.cmp(first.image, pair.image, shallow=False) for pair in others):
        log.warning("dataset: all %d training images are alike: nothing can be learned from them", len(others) + 1)
    colours = palette(config.dataset.num_classes, config.dataset.colours)
    contact_sheet(pairs, colours, config.dataset.classes).save(workspace.artifact / "samples.png")
    counts = ", ".join(f"{found['pairs']} {split}" for split, found in summary.items()) + " images"
    left_out = sum(map(len, skipped.values()))
    workspace.summarize(f"{counts}, {left_out} skipped" if left_out else counts)
    return dataset


def _check(config: Config, pairs: list[Pair], workspace: Workspace) -> tuple[dict[str, Any], dict[str, str]]:
    """What is in the pairs, and {position: why} of those that are left out."""
    from segslim.data.checks import check_pairs

    faults: dict[str, str] = {}

    def skip(at: int, error: UserError) -> None:
        log.warning("skipped: %s", error)
        faults[str(at)] = str(error)

    found = check_pairs(
        pairs,
        config.dataset.num_classes,
        config.dataset.ignore_index,
        progress=lambda done, total: workspace.progress("checking", done, total),
        on_fault=skip if config.dataset.on_error == "skip" else None,
    )
    return dataclasses.asdict(found), faults


@data.depends
def content(config: Config) -> Any:
    """The content of the data set; its files are there when this returns, unless those that are not are left out."""
    cache = Path(config.store) / "file-digests.json"
    if config.dataset.on_error == "raise":
        return source(config).identity(cache)
    return {"content": source(config).identity(cache, strict=False), "on_error": config.dataset.on_error}


@data.check
def check_classes(config: Config) -> None:
    """Raises UserError when there is not one name, or not one colour, for each class."""
    dataset = config.dataset
    for key in ("classes", "colours"):
        given = getattr(dataset, key)
        if given is not None and len(given) != dataset.num_classes:
            raise UserError(
                f"dataset.{key} has {len(given)} entries for dataset.num_classes={dataset.num_classes}: give one for "
                f"each class, or dataset.{key}=null"
            )
