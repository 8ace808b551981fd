"""A config of every component that the installed PaddleSeg registers is read, and composes to one of ours."""

import pytest

from segslim.errors import UserError
from segslim.paddleseg.components import components
from segslim.paddleseg.dataset import KINDS, translate_dataset
from segslim.paddleseg.section import read
from segslim.paddleseg.training import translate_model, translate_training
from tests.paddleseg.fragments import NORMALIZE, quick_start, resize, write
from tests.paddleseg.registry import node, registered

FINE = [resize(64, 64), NORMALIZE]
#: What is refused in one line, and why.
REFUSED = {
    "PSSLDataset": "pretrained",  # labels in archives of numpy, and no validation
    "DistillCrossEntropyLoss": "distill_loss",
    "ScalePadding": None,  # read as Resize, with a warning
}


def config_of(name):
    registry = components()[name].registry
    made = node(name)
    if registry == "MODELS":
        return quick_start(model={**made, "num_classes": 2})
    if registry == "BACKBONES":
        return quick_start(model={"type": "PSPNet", "backbone": made})
    if registry == "LOSSES":
        return quick_start(loss={"types": [made], "coef": [1]})
    if registry == "OPTIMIZERS":
        return quick_start(optimizer={**made, "weight_decay": 0.01})
    if registry == "TRANSFORMS":
        return quick_start(train_dataset={**quick_start()["train_dataset"], "transforms": [made, *FINE]})
    sets = {
        f"{split}_dataset": {**made, "dataset_root": "data", "transforms": FINE, "mode": split}
        for split in ("train", "val")
    }
    classes = {"num_classes": 2, "train_path": "a.txt", "val_path": "b.txt"} if name == "Dataset" else {}
    return {**quick_start(), **{split: {**given, **classes} for split, given in sets.items()}}


REGISTRIES = ("MODELS", "BACKBONES", "LOSSES", "TRANSFORMS", "OPTIMIZERS", "DATASETS")


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_component_is_read(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    for component in registered(registry):
        file = write(tmp_path, config_of(component.name))
        if REFUSED.get(component.name):
            with pytest.raises(UserError, match=REFUSED[component.name]) as refused:
                read_whole(file)
            assert "\n" not in str(refused.value)
            continue
        model, dataset, rest = read_whole(file)
        if registry in ("MODELS", "BACKBONES"):
            network = model["network"] if registry == "MODELS" else model["network"]["backbone"]
            assert network["_target_"] == component.target
        elif registry == "LOSSES":
            assert model["loss"]["types"][0]["_target_"] == component.target
        elif registry == "DATASETS":
            assert dataset.get("num_classes", KINDS[component.name].num_classes) == (
                KINDS[component.name].num_classes or 2
            )
        elif registry == "OPTIMIZERS":
            optimizer = rest["train"].get("optimizer", {"_target_": component.target})
            assert optimizer["_target_"] == component.target


def read_whole(file):
    config = read(file)
    return translate_model(config), translate_dataset(config), translate_training(config)
