"""Every type that PaddleSeg has is taken over, or refused by name."""

import pytest

from segslim.errors import UserError
from segslim.paddleseg import model, transforms
from segslim.paddleseg.components import components
from segslim.paddleseg.reading import Section
from tests.paddleseg.fragments import lists, losses, network, quick_start, resize

NEEDED = {"backbone": {"type": "HRNet_W18"}, "losses": [{"type": "DiceLoss"}], "coef": [1], "in_channels": 3}


def named(registry):
    return sorted(name for name, component in components().items() if component.registry == registry)


def example(name):
    """The type with a value for each argument that it must be given."""
    needed = [argument for argument in components()[name].arguments()[1] if argument != "num_classes"]
    return {"type": name, **{argument: NEEDED.get(argument, 2) for argument in needed}}


def translated(kind):
    return model.translate(Section("a.yml", "", quick_start(**kind)), "a")


@pytest.mark.parametrize("name", named("MODELS"))
def test_every_model(name):
    ours = translated({"model": example(name)})["network"]
    assert ours["_target_"].endswith(f".{name}")
    assert ours.get("num_classes", "${dataset.num_classes}") == "${dataset.num_classes}"


@pytest.mark.parametrize("name", named("BACKBONES"))
def test_every_backbone(name):
    backbone = translated({"model": network("FCN", example(name))})["network"]["backbone"]
    assert backbone["_target_"].endswith(f".{name}")


@pytest.mark.parametrize("name", named("LOSSES"))
def test_every_loss(name):
    config = {"loss": losses(example(name), coef=[1] * 5)}
    if name in ("KLLoss", "DistillCrossEntropyLoss", "MaskFormerLoss"):
        with pytest.raises(UserError, match=f"{name} needs more than logits and labels"):
            translated(config)
    else:
        assert translated(config)["loss"]["types"][0]["_target_"] == components()[name].target


@pytest.mark.parametrize("name", named("TRANSFORMS"))
def test_every_transform(name):
    config = {**quick_start(), **lists("data", [resize(64, 64), example(name)], [resize(64, 64)])}
    if name == "GenerateInstanceTargets":
        with pytest.raises(UserError, match=name):
            transforms.translate(Section("a.yml", "", config))
    else:
        ours = transforms.translate(Section("a.yml", "", config))["train_transforms"][1]
        assert ours["_target_"] == components()[name].target
