"""`train_dataset`, `val_dataset` and their transforms of a PaddleSeg config -> our group `dataset`."""

import os
from pathlib import Path
from typing import Any

from segslim.paddleseg.components import component_node
from segslim.paddleseg.section import Section

# PaddleSeg's class: our option of the group `dataset`, and its number of classes
KINDS: dict[str, tuple[str, int | None]] = {
    "Dataset": ("file_list", None),
    "OpticDiscSeg": ("optic_disc", 2),
    "Cityscapes": ("cityscapes", 19),
    "PascalVOC": ("voc", 21),
    "ADE20K": ("ade20k", 150),
}
KEYS = ("type", "dataset_root", "transforms", "mode", "edge")
LIST_KEYS = ("num_classes", "img_channels", "train_path", "val_path", "test_path", "separator", "ignore_index")
SIZE_KEYS = {"Resize": "target_size", "RandomPaddingCrop": "crop_size"}  # these bring every image to one size
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
    translated: dict[str, Any] = {"defaults": [f"/dataset/{KINDS[kind][0]}@_here_", "_self_"]}
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
    _, own = KINDS.get(training.text("type"), ("", None))
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


def _checked_dataset(config: Section, split: str) -> Section:
    section = config.section(f"{split}_dataset")
    kind = section.text("type")
    if kind not in KINDS:
        raise section.error("type", f"= {kind} is none of {', '.join(KINDS)}: write lists and make it a Dataset")
    section.allow((*KEYS, *LIST_KEYS) if kind == "Dataset" else KEYS)
    modes = ["train", "trainaug"] if (kind, split) == ("PascalVOC", "train") else [split]
    if section.get("mode", split) not in modes:
        raise section.error("mode", f"= {section.values['mode']} should be {' or '.join(modes)}")
    if section.get("edge"):
        raise section.error("edge", "is not supported: no loss here takes the edges of labels")
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
    - padding in validation becomes Resize to the same size, since labels keep theirs;
    - dataset.size is the target of the last Resize of validation. Without one, where PaddleSeg would evaluate each
      image in its own size, it is that of the last crop or Resize of training, and a Resize to it is added.
    Each of these changes is warned of. Transforms to this size follow `dataset.size` on the command line.

    Raises `UserError` for a transform that PaddleSeg has not or that cannot be used here, and if no size follows.
    """
    training = [_transform_node(entry) for entry in config.section("train_dataset").sections("transforms")]
    deployed = validated = list(config.section("val_dataset").sections("transforms"))
    if config.get("export") is not None:
        config.section("export").allow(("transforms",))
        deployed = list(config.section("export").sections("transforms"))
        if [entry.values for entry in deployed] != [entry.values for entry in validated]:
            config.warn("export.transforms", "are used in validation too: what is deployed is measured")
    validation = [_transform_node(_resized_not_padded(entry)) for entry in deployed]
    resizing = [entry for entry in validation if _name(entry) not in SIZE_STAYS]
    if resizing and _is_resize(resizing[-1]):
        size = _size(resizing[-1])
    else:
        sizes = [_size(entry) for entry in training if _name(entry) == "RandomPaddingCrop" or _is_resize(entry)]
        if not sizes:
            problem = "bring images to no one size: add RandomPaddingCrop or Resize"
            raise config.section("train_dataset").error("transforms", problem)
        size = sizes[-1]
        names = [_name(entry) for entry in validation]
        position = names.index("Normalize") if "Normalize" in names else len(names)
        validation.insert(position, {"_target_": "paddleseg.transforms.Resize", "target_size": size})
        change = f"resize images to {size}, the size of training, too: a deployed network has one size"
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


def _transform_node(entry: Section) -> dict[str, Any]:
    if entry.text("type") == "GenerateInstanceTargets":
        raise entry.error("type", "= GenerateInstanceTargets: targets for MaskFormer's loss are not supported")
    node = component_node(entry, "TRANSFORMS")
    key = SIZE_KEYS.get(_name(node), "")
    size = node.get(key, DEFAULT_SIZE)
    if key and not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise entry.error(key, f"= {size!r} should be [width, height] in pixels")
    return node


def _resized_not_padded(entry: Section) -> Section:
    kind = entry.text("type")
    if kind == "PaddingByAspectRatio":
        raise entry.error("type", f"= {kind} pads images of validation, whose labels keep their size: use Resize")
    if kind not in ("Padding", "ScalePadding"):
        return entry
    size = entry.get("target_size", DEFAULT_SIZE)
    entry.warn("type", f"= {kind} became Resize to {size}: labels keep their size")
    return entry.replace({"type": "Resize", "target_size": size})


def _name(entry: dict[str, Any]) -> str:
    return str(entry["_target_"]).rpartition(".")[2]


def _is_resize(entry: dict[str, Any]) -> bool:
    return _name(entry) == "Resize" and not entry.get("keep_ratio") and not entry.get("size_divisor")


def _size(entry: dict[str, Any]) -> list[int]:
    return list(entry.get(SIZE_KEYS[_name(entry)], DEFAULT_SIZE))
