"""`train_dataset` and `val_dataset` of a PaddleSeg config -> our group `dataset`."""

import os
from pathlib import Path
from typing import Any

from segslim.paddleseg.reading import Section
from segslim.paddleseg.schedule import iters_and_rate
from segslim.paddleseg.transforms import translate as transforms

# PaddleSeg's class: our option of the group `dataset`, which knows the source, and the classes
KINDS: dict[str, tuple[str, int | None]] = {
    "Dataset": ("file_list", None),
    "OpticDiscSeg": ("optic_disc", 2),
    "Cityscapes": ("cityscapes", 19),
    "PascalVOC": ("voc", 21),
    "ADE20K": ("ade20k", 150),
}
FOR_ALL = ("type", "dataset_root", "transforms", "mode", "edge")
OF_LISTS = ("num_classes", "img_channels", "train_path", "val_path", "test_path", "separator", "ignore_index")


def translate(config: Section) -> dict[str, Any]:
    """The option of `dataset` that the config stands for, over our own option of the same data set.

    A PaddleSeg `Dataset` is our FileList. Its list files are where PaddleSeg finds them, from the working folder; those
    under the root are written relative to it, so that dataset.root=... on the command line moves them too.
    """
    training, validation = (_checked(config, split) for split in ("train", "val"))
    for key in ("type", "dataset_root"):
        if training.get(key) != validation.get(key):
            raise validation.fault(key, f"is {validation.get(key)}, and that of train_dataset {training.get(key)}")
    option, _ = KINDS[training.values["type"]]
    translated: dict[str, Any] = {"defaults": [f"/dataset/{option}@_here_", "_self_"]}
    if training.get("dataset_root") is not None:
        translated["root"] = _root(training)
    if option == "file_list":
        translated |= _lists(training, validation)
        translated |= {"num_classes": num_classes(config), "ignore_index": ignore_index(config)}
    if training.get("mode") == "trainaug":
        translated["source"] = {"augmented": True}
    iters, batch_size, rate = iters_and_rate(config)
    recipe = {"iters": iters, "retrain_iters": iters, "batch_size": batch_size, "learning_rate": rate}
    return translated | transforms(config) | {"recipe": recipe}


def num_classes(config: Section) -> int:
    """The number of classes: the data set's own, or that which a `Dataset` or, without it, the model gives."""
    training = config.section("train_dataset")
    _, own = KINDS.get(training.word("type"), ("", None))
    if own is not None:
        return own
    giver = next((section for section in (training, config.section("model")) if section.get("num_classes")), training)
    return giver.whole("num_classes")


def ignore_index(config: Section) -> int:
    """The label that counts for nothing; 255, as in PaddleSeg, where none is given."""
    return config.section("train_dataset").whole("ignore_index", 255)


def _checked(config: Section, split: str) -> Section:
    section = config.section(f"{split}_dataset")
    kind = section.word("type")
    if kind not in KINDS:
        raise section.fault("type", f"= {kind} is none of {', '.join(KINDS)}: write lists and make it a Dataset")
    section.only((*FOR_ALL, *OF_LISTS) if kind == "Dataset" else FOR_ALL)
    modes = ["train", "trainaug"] if (kind, split) == ("PascalVOC", "train") else [split]
    if section.get("mode", split) not in modes:
        raise section.fault("mode", f"= {section.values['mode']} should be {' or '.join(modes)}")
    if section.get("edge"):
        raise section.fault("edge", "is not supported: no loss here takes the edges of labels")
    if section.get("img_channels", 3) != 3:
        raise section.fault("img_channels", f"= {section.values['img_channels']}: images have 3 channels here")
    for key, whole in (("num_classes", num_classes), ("ignore_index", ignore_index)):
        if kind == "Dataset" and section.get(key, whole(config)) != whole(config):
            raise section.fault(key, f"is {section.values[key]}, and that of train_dataset {whole(config)}")
    return section


def _root(training: Section) -> str | None:
    """The folder of the data, or None where it is to be downloaded: PaddleSeg does so where it is not there."""
    root = training.word("dataset_root")
    if training.values["type"] == "OpticDiscSeg" and not Path(root).exists():
        training.warn("dataset_root", f"= {root} does not exist: the data set will be downloaded")
        return None
    return root


def _lists(training: Section, validation: Section) -> dict[str, Any]:
    root = training.word("dataset_root")
    source = {
        "train_list": _from(root, training.word("train_path")),
        "val_list": _from(root, validation.word("val_path")),
    }
    if training.get("separator", " ") != validation.get("separator", " "):
        raise validation.fault("separator", "is not that of train_dataset: make them equal")
    if training.get("separator") is not None:
        source["separator"] = training.values["separator"]
    return {"name": Path(root).name, "source": source}


def _from(root: str, file: str) -> str:
    """The list file relative to the root that it is under, or else absolute: the root may be a link to elsewhere."""
    relative = os.path.relpath(file, root)
    return str(Path(file).absolute()) if relative.startswith(os.pardir) else relative
