"""data: () -> dataset. Draws what has to be drawn, and checks every image and label before training on them."""

import dataclasses
import filecmp
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config
from segslim.data import Pair
from segslim.data.images import Reading
from segslim.data.source import SPLITS, Dataset
from segslim.errors import UserError
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import NAMES
from segslim.stages.shared.images import listed_pairs, source

MOST_SHRUNK = 4  # times, without a warning: a thing of 8 pixels has 2 then


@stage(
    does="checking the data",
    gives=Dataset,
    reads=[
        *("dataset.source", "dataset.num_classes", "dataset.ignore_index"),
        *("dataset.channels", "dataset.max_value", "dataset.label_map"),
    ],
    # what is in the files counts, not where they are; and no colour of a picture is worth training again
    ignores=["dataset.source.root", "dataset.on_error", *NAMES],
    version=2,
)
def data(config: Config, workspace: Workspace) -> Dataset:
    """Gives the checked data set, and writes samples.png, a contact sheet, beside it."""
    from segslim.data.contact_sheet import contact_sheet

    source(config).prepare(workspace.artifact, lambda done, total: workspace.progress("preparing", done, total))
    given = config.dataset
    reading = Reading(given.channels, given.max_value, given.label_map or {}, given.ignore_index)
    dataset = Dataset(workspace.artifact, reading=reading)
    summary: dict[str, Any] = {}
    skipped: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        pairs = [replace(pair, reading=reading) for pair in listed_pairs(config, dataset, split)]
        summary[split], skipped[split] = _check(config, pairs, workspace)
        if not summary[split]["pairs"]:
            raise UserError(f"dataset.on_error=skip leaves no {split} image: {next(iter(skipped[split].values()))}")
    dataset = replace(dataset, summary=summary, skipped=skipped)
    usable = {split: dataset.usable(listed_pairs(config, dataset, split), split) for split in SPLITS}
    first, *others = usable["train"]
    if others and all(filecmp.cmp(first.image, pair.image, shallow=False) for pair in others):
        alike = f"all {len(others) + 1} training images are alike: nothing can be learned from them"
        summary["train"]["warnings"] = [*summary["train"]["warnings"], alike]
    colours = palette(config.dataset.num_classes, config.dataset.colours)
    contact_sheet(usable, colours, config.dataset.classes).save(workspace.artifact / "samples.png")
    counts = ", ".join(f"{found['pairs']} {split}" for split, found in summary.items()) + " images"
    counts += " without labels" if first.label is None else ""
    left_out = sum(map(len, skipped.values()))
    workspace.summarize(f"{counts}, {left_out} skipped" if left_out else counts)
    return dataset


def _check(config: Config, pairs: list[Pair], workspace: Workspace) -> tuple[dict[str, Any], dict[str, str]]:
    """What is in the pairs, and {position: why} of those that are left out."""
    from segslim.data.checks import check_pairs

    faults: dict[str, str] = {}

    def skip(at: int, error: UserError) -> None:
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


@data.remark
def remarks(dataset: Dataset, config: Config) -> list[str]:
    """What a user should know of the data, in every run."""
    summary = dataset.summary
    found = [f"skipped: {why}" for split in SPLITS for why in dataset.skipped[split].values()]
    found += [warning for split in SPLITS for warning in summary[split].get("warnings", ())]
    if any(summary["val"]["class_pixels"]) and 0 in summary["val"]["class_pixels"]:
        found.append("mIoU is the mean over the classes that the validation labels have")
    return [*found, *_shrunk(summary, config)]


def _shrunk(summary: Mapping[str, Any], config: Config) -> list[str]:
    width, height = config.dataset.size
    sizes = [size for split in SPLITS for size in summary[split]["sizes"]]
    shrunk = [size for size in sizes if max(size["width"] / width, size["height"] / height) > MOST_SHRUNK]
    resized = any(node["_target_"].endswith(".Resize") for node in config.dataset.val_transforms)
    if not shrunk or not resized or config.evaluation.crop_size is not None:
        return []
    count, largest = (
        sum(size["images"] for size in shrunk),
        max(shrunk, key=lambda size: size["width"] * size["height"]),
    )
    return [
        f"{count} of {sum(size['images'] for size in sizes)} images are shrunk by more than {MOST_SHRUNK}, as from"
        f" {largest['width']} x {largest['height']} to dataset.size=[{width},{height}]: small things vanish; give a"
        f" larger dataset.size, or slide windows over them by evaluation.crop_size=[{width},{height}], in prediction"
        " --is_slide"
    ]


@data.check
def check_classes(config: Config) -> None:
    """Raises UserError when there is not one name, or not one colour, for each class, or a label is mapped to none."""
    dataset = config.dataset
    for key in ("classes", "colours"):
        given = getattr(dataset, key)
        if given is not None and len(given) != dataset.num_classes:
            raise UserError(
                f"dataset.{key} has {len(given)} entries for dataset.num_classes={dataset.num_classes}: give one for "
                f"each class, or dataset.{key}=null"
            )
    known = {*range(dataset.num_classes), dataset.ignore_index}
    for number, class_id in (dataset.label_map or {}).items():
        if class_id not in known:
            raise UserError(
                f"dataset.label_map={{{number}: {class_id}}}: {class_id} is neither a class, 0 to"
                f" {dataset.num_classes - 1}, nor the ignored {dataset.ignore_index}"
            )
