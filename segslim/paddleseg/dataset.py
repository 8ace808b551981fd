"""`train_dataset`, `val_dataset` and their transforms of a PaddleSeg config -> our group `dataset`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segslim.errors import UserError
from segslim.paddleseg.components import component_node
from segslim.paddleseg.section import Section


@dataclass(frozen=True)
class Kind:
    """A data set class of PaddleSeg: our option of the group `dataset`, its number of classes, what it changes of
    `source`, and the size of its images, where they have one.
    """

    option: str
    num_classes: int | None
    source: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    @property
    def lists(self) -> bool:
        """Whether it is a list of files, with no more to it than their names."""
        return self.option == "file_list"


def _lists_of(train: str, val: str, separator: str = " ") -> dict[str, str]:
    return {"train_list": train, "val_list": val, "separator": separator}


_LISTS = _lists_of("train_list.txt", "val_list.txt")
KINDS = {
    "Dataset": Kind("file_list", None),
    "OpticDiscSeg": Kind("optic_disc", 2),
    "Cityscapes": Kind("cityscapes", 19, size=(2048, 1024)),
    "PascalVOC": Kind("voc", 21),
    "ADE20K": Kind("ade20k", 150),
    **{name: Kind("file_list", 2, _LISTS) for name in ("DRIVE", "STARE", "CHASEDB1", "HRF")},
    "PPHumanSeg14K": Kind("file_list", 2, _lists_of("train.txt", "val.txt")),
    "MiniDeepGlobeRoadExtraction": Kind("file_list", 2, _lists_of("train.txt", "val.txt", "|")),
    "CocoStuff": Kind("paddleseg_class", 171, {"dataset": "paddleseg.datasets.CocoStuff"}),
    "PascalContext": Kind("paddleseg_class", 60, {"dataset": "paddleseg.datasets.PascalContext"}),
    "EG1800": Kind("paddleseg_class", 2, {"dataset": "paddleseg.datasets.EG1800"}),
    "SUPERVISELY": Kind("paddleseg_class", 2, {"dataset": "paddleseg.datasets.SUPERVISELY"}),
}
PORTRAITS = ("common_transforms", "transforms1", "transforms2")  # of the two that PortraitNet is trained on
KEYS = ("type", "dataset_root", "transforms", "mode", "edge")
LIST_KEYS = ("num_classes", "img_channels", "train_path", "val_path", "test_path", "separator", "ignore_index")
SIZE_KEYS = {
    "Resize": "target_size",
    "Padding": "target_size",
    "RandomPaddingCrop": "crop_size",
}  # these bring every image to one size
DEFAULT_SIZE = [512, 512]  # PaddleSeg's, of both
SIZE_STAYS = ("Normalize", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomBlur", "RandomDistort", "RandomNoise")


def translate_dataset(config: Section) -> dict[str, Any]:
    """The option of `dataset` that the config stands for, over our own option of the same data set.

    A PaddleSeg `Dataset` is our FileList. Its list files are where PaddleSeg finds them, from the working folder; those
    under the root are written relative to it, so that dataset.root=... on the command line moves them too.
    """
    training, validation = (_checked_dataset(config, split) for split in ("train", "val"))
    for key in ("type", "dataset_root"):
        if training.get(key) != validation.get(key):
            raise validation.error(key, f"is {validation.get(key)}, and that of train_dataset {training.get(key)}")
    kind = training.values["type"]
    translated: dict[str, Any] = {"defaults": [f"/dataset/{KINDS[kind].option}@_here_", "_self_"]}
    if KINDS[kind].source:
        translated |= {"name": kind, "source": dict(KINDS[kind].source), "num_classes": KINDS[kind].num_classes}
    if training.get("dataset_root") is not None:
        root: str | None = training.text("dataset_root")
        if kind == "OpticDiscSeg" and not Path(str(root)).exists():  # then PaddleSeg downloads it too
            training.warn("dataset_root", f"= {root} does not exist: the data set will be downloaded")
            root = None
        translated["root"] = root
    if kind == "Dataset":
        translated |= _lists(training, validation)
        translated |= {"num_classes": num_classes(config), "ignore_index": ignore_index(config)}
        translated |= {"channels": channels(config)}
    if training.get("mode") == "trainaug":
        translated["source"] = {"augmented": True}
    return translated | _transforms(config)


def num_classes(config: Section) -> int:
    """The number of classes: the data set's own, or the one given by a `Dataset` or, failing that, by the model."""
    training = config.section("train_dataset")
    own = _kind(training).num_classes
    if own is not None:
        return own
    sections = (training, config.section("model"))
    return next((section for section in sections if section.get("num_classes")), training).integer("num_classes")


def ignore_index(config: Section) -> int:
    """The label that neither losses nor metrics count; 255, as in PaddleSeg, by default."""
    return config.section("train_dataset").integer("ignore_index", 255)


def channels(config: Section) -> int:
    """Of an image."""
    return config.section("train_dataset").integer("img_channels", 3)


def _kind(section: Section) -> Kind:
    kind = section.text("type")
    if kind == "PSSLDataset":
        problem = "= PSSLDataset is for training a backbone on ImageNet, without validation: not supported; give the"
        raise section.error("type", f"{problem} weights that PSSL came to by `pretrained` of the backbone")
    if kind not in KINDS:
        raise section.error("type", f"= {kind} is none of {', '.join(KINDS)}: write lists and make it a Dataset")
    return KINDS[kind]


def _checked_dataset(config: Section, split: str) -> Section:
    section = config.section(f"{split}_dataset")
    _kind(section)
    kind = section.text("type")
    section.allow((*KEYS, *LIST_KEYS) if kind == "Dataset" else (*KEYS, *PORTRAITS))
    modes = ["train", "trainaug"] if (kind, split) == ("PascalVOC", "train") else [split]
    if section.get("mode", split) not in modes:
        raise section.error("mode", f"= {section.values['mode']} should be {' or '.join(modes)}")
    for key, number in (("num_classes", num_classes), ("ignore_index", ignore_index), ("img_channels", channels)):
        if kind == "Dataset" and section.get(key, number(config)) != number(config):
            raise section.error(key, f"is {section.values[key]}, and that of train_dataset {number(config)}")
    return section


def _lists(training: Section, validation: Section) -> dict[str, Any]:
    root = training.text("dataset_root")
    source = {}
    for split, section in (("train", training), ("val", validation)):
        file = section.text(f"{split}_path")
        relative = os.path.relpath(file, root)
        # A list outside the root is written as an absolute path: the root may be a link to elsewhere.
        source[f"{split}_list"] = str(Path(file).absolute()) if relative.startswith(os.pardir) else relative
    if training.get("separator", " ") != validation.get("separator", " "):
        raise validation.error("separator", "is not that of train_dataset: make them equal")
    if training.get("separator") is not None:
        source["separator"] = training.values["separator"]
    return {"name": Path(root).name, "source": source}


def _transforms(config: Section) -> dict[str, Any]:
    """size, train_transforms and val_transforms of our group `dataset`.

    A deployed network is given images of one size, and is measured as it is deployed. So:
    - `export.transforms`, if given, are what images go through once deployed, and replace those of val_dataset;
    - dataset.size is the target of the last Resize or Padding of validation. Without one, where PaddleSeg would
      evaluate each image in its own size, it is that of the windows that slide over images, else that of the images of
      the data set, else that of the last crop or Resize of training, and a Resize to it is added.
    Each of these changes is warned of. Transforms to this size follow `dataset.size` on the command line.

    Raises `UserError` for a transform that PaddleSeg has not or that cannot be used here, and if no size follows.
    """
    entries = _entries(config.section("train_dataset"))
    training = [_transform_node(entry) for entry in entries if entry.text("type") != "GenerateInstanceTargets"]
    deployed = validated = _entries(config.section("val_dataset"))
    if config.get("export") is not None:
        config.section("export").allow(("transforms",))
        deployed = list(config.section("export").sections("transforms"))
        if [entry.values for entry in deployed] != [entry.values for entry in validated]:
            config.warn("export.transforms", "are used in validation too: what is deployed is measured")
    validation = [_transform_node(_padded_not_scaled(entry)) for entry in deployed]
    resizing = [entry for entry in validation if _name(entry) not in SIZE_STAYS]
    windows = _windows(config)
    if windows is None and resizing and _is_resize(resizing[-1]):
        size = _size(resizing[-1])
    else:
        size, whose = _chosen_size(config, training, windows)
        names = [_name(entry) for entry in validation]
        position = names.index("Normalize") if "Normalize" in names else len(names)
        validation.insert(position, {"_target_": "paddleseg.transforms.Resize", "target_size": size})
        change = f"resize images to {size}, {whose}, too, unless dataset.size is typed: a deployed network has one size"
        config.warn("val_dataset.transforms", change)

    def following(entry: dict[str, Any]) -> dict[str, Any]:
        """The transform, with the command line's size in place of this one."""
        sized = {key: "${dataset.size}" for key in SIZE_KEYS.values() if entry.get(key) == size}
        return {**entry, **sized}

    return {
        "size": size,
        "train_transforms": [following(entry) for entry in training],
        "val_transforms": [following(entry) for entry in validation],
    }


def _entries(section: Section) -> list[Section]:
    """The entries of its transforms; of PortraitNet's data sets those of the first of two images that it makes."""
    if section.get("common_transforms") is None:
        return list(section.sections("transforms"))
    section.warn("common_transforms", "are followed by transforms1; the second image of transforms2 is not made")
    return [entry for name in PORTRAITS[:2] if section.get(name) for entry in section.sections(name)]


def _windows(config: Section) -> list[int] | None:
    """The size of the windows that slide over each image of validation, where they do."""
    for name in ("test_config", "test"):
        if config.get(name) and config.section(name).get("is_slide"):
            return config.section(name).size("crop_size")
    return None


def _chosen_size(config: Section, training: list[dict[str, Any]], windows: list[int] | None) -> tuple[list[int], str]:
    """The size of the deployed network where validation gives none, and whose it is, in words."""
    if windows is not None:
        return windows, "the size of the windows that slide over them"
    own = KINDS[config.section("train_dataset").text("type")].size or _size_of_images(config.section("val_dataset"))
    if own is not None:
        return list(own), "their own size"
    sizes = [_size(entry) for entry in training if _name(entry) == "RandomPaddingCrop" or _is_resize(entry)]
    if not sizes:
        problem = "bring images to no one size: add RandomPaddingCrop or Resize"
        raise config.section("train_dataset").error("transforms", problem)
    return sizes[-1], "the size of training"


def _size_of_images(section: Section) -> tuple[int, int] | None:
    """(width, height) of the images that a list names first and last, where both are there and equally large."""
    from PIL import Image

    sizes = set()
    try:
        lines = Path(section.text("val_path")).read_text(encoding="utf-8").split("\n")
        named = [line.split(section.get("separator", " "))[0].strip() for line in lines if line.strip()]
        for name in (named[0], named[-1]):
            with Image.open(Path(section.text("dataset_root")) / name) as image:
                sizes.add(image.size)
    except (OSError, ValueError, IndexError, UserError):  # who reads them will say so
        return None
    return sizes.pop() if len(sizes) == 1 else None


def _transform_node(entry: Section) -> dict[str, Any]:
    node = component_node(entry, "TRANSFORMS")
    key = SIZE_KEYS.get(_name(node))
    if key in entry.values:
        entry.size(str(key))
    return node


def _padded_not_scaled(entry: Section) -> Section:
    """ScalePadding leaves no note of how it changed the size, and cannot be undone on a prediction."""
    if entry.text("type") != "ScalePadding":
        return entry
    size = entry.get("target_size", DEFAULT_SIZE)
    entry.warn("type", f"= ScalePadding became Resize to {size}: it cannot be undone on a prediction")
    return entry.replace({"type": "Resize", "target_size": size})


def _name(entry: dict[str, Any]) -> str:
    return str(entry["_target_"]).rpartition(".")[2]


def _is_resize(entry: dict[str, Any]) -> bool:
    return _name(entry) in ("Resize", "Padding") and not entry.get("keep_ratio") and not entry.get("size_divisor")


def _size(entry: dict[str, Any]) -> list[int]:
    return list(entry.get(SIZE_KEYS[_name(entry)], DEFAULT_SIZE))
