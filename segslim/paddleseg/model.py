"""`model` and `loss` of a PaddleSeg config -> our group `model`."""

from typing import Any

from segslim.paddleseg.components import node
from segslim.paddleseg.dataset import ignore_index, num_classes
from segslim.paddleseg.reading import Section

NUM_CLASSES, IGNORE_INDEX = "${dataset.num_classes}", "${dataset.ignore_index}"
# losses that need more than a head's logits and the labels
OF_MORE = ("KLLoss", "DistillCrossEntropyLoss", "MaskFormerLoss")


def translate(config: Section, name: str) -> dict[str, Any]:
    """The option of `model` that the config stands for; `name` is what reports call it.

    Pretrained weights that are a download address become null, with a warning: weights come from train.checkpoint.
    """
    return {"name": name, "network": _network(config), "loss": _losses(config)}


def _network(config: Section) -> dict[str, Any]:
    model = config.section("model")
    classes, given = num_classes(config), model.get("num_classes")
    if given not in (None, classes):
        raise model.fault("num_classes", f"is {given}, and that of the data set {classes}: make them equal")
    values = {key: value for key, value in model.values.items() if key != "num_classes"}
    network = node(Section(model.file, model.key, values), "MODELS", "BACKBONES", given={"num_classes": NUM_CLASSES})
    _drop_addresses(network, model)
    return network


def _drop_addresses(network: dict[str, Any], section: Section) -> None:
    for key, value in network.items():
        if isinstance(value, dict):
            _drop_addresses(value, Section(section.file, section.path(key), value))
        elif key == "pretrained" and isinstance(value, str) and "://" in value:
            network[key] = None
            section.warn(key, f"= {value} is not downloaded: give weights by train.checkpoint=...")


def _losses(config: Section) -> dict[str, Any]:
    loss = config.section("loss")
    loss.only(("types", "coef"))
    types = list(loss.sections("types"))
    coef = _weights(loss)
    if len(types) not in (1, len(coef)):
        raise loss.fault("coef", f"= {coef} for {len(types)} types: give a weight for each output of the network")
    ignored = ignore_index(config)
    return {"types": [_loss(entry, ignored) for entry in types], "coef": coef}


def _weights(section: Section) -> list[float]:
    coef = section.need("coef")
    if not isinstance(coef, list) or not all(type(weight) in (int, float) for weight in coef):
        raise section.fault("coef", f"should be a list of numbers, and is {coef!r}")
    return coef


def _loss(section: Section, ignored: int) -> dict[str, Any]:
    """A loss; MixedLoss holds others. What is ignored is the data set's, as in PaddleSeg."""
    if section.word("type") in OF_MORE or section.get("edge_label"):
        raise section.fault("type", f"= {section.values['type']} needs more than logits and labels: not supported")
    given = section.get("ignore_index")
    if given not in (None, ignored):
        raise section.fault("ignore_index", f"is {given}, and that of the data set {ignored}: make them equal")
    values = {key: value for key, value in section.values.items() if key != "ignore_index"}
    if "losses" in section:
        values["coef"] = _weights(section)
        values["losses"] = [_loss(entry, ignored) for entry in section.sections("losses")]
    return node(Section(section.file, section.key, values), "LOSSES", given={"ignore_index": IGNORE_INDEX})
