"""What cannot be taken over is refused in one line that names the file and the key, never dropped."""

import pytest
from hydra.plugins.config_source import ConfigLoadError

from segslim.paddleseg.source import PaddleSegSource
from tests.paddleseg.fragments import (
    ADAMW,
    FIRST_POLY,
    FLIP,
    NORMALIZE,
    POLY,
    STEP_SCALING,
    crop,
    data,
    lists,
    losses,
    network,
    on,
    padding,
    quick_start,
    resize,
    write,
)

FINE = [resize(64, 64), NORMALIZE]


def without(key, **changed):
    return {name: value for name, value in quick_start(**changed).items() if name != key}


def transformed(train=FINE, val=FINE):
    return {**quick_start(), **data("OpticDiscSeg", "data/optic_disc_seg", train, val)}


def heads(*types):
    return quick_start(loss=losses(*types, coef=[1] * 5))


REFUSED = {
    "a key that is misspelt": (
        {**without("iters"), "itres": 5},
        "itres: not known or not supported here; did you mean iters?",
    ),
    "keys that are unknown": (
        quick_start(slim={"a": 1}, distill_loss=losses("KLLoss")),
        "slim, distill_loss: not known",
    ),
    "no schedule": (without("lr_scheduler"), "learning_rate has no value"),
    "no loss": (without("loss"), "loss has no value"),
    "no model": (without("model"), "model has no value"),
    "no data to validate on": (without("val_dataset"), "val_dataset has no value"),
    "no iterations": (without("iters"), "iters has no value"),
    "no type": (quick_start(model={"pretrained": None}), "model.type has no value"),
    "segformer_b0 as its authors train it": (
        on("cityscapes", optimizer=ADAMW, model=network("SegFormer", "MixVisionTransformer_B0", embedding_dim=256)),
        "optimizer.type = AdamW is not supported: training here is SGD with momentum",
    ),
    "adam": (quick_start(optimizer={"type": "adam"}), "optimizer.type = adam is not supported"),
    "rates by layer": (
        quick_start(optimizer={"type": "SGD", "custom_cfg": [{"name": "backbone", "lr_mult": 0.1}]}),
        "optimizer.custom_cfg: not known or not supported",
    ),
    "nesterov": (quick_start(optimizer={"type": "Momentum", "use_nesterov": True}), "optimizer.use_nesterov is not"),
    "a schedule in steps": (
        quick_start(lr_scheduler={"type": "StepDecay", "learning_rate": 0.1, "step_size": 30}),
        "lr_scheduler.type = StepDecay is not supported",
    ),
    "a rate that ends above nought": (
        quick_start(lr_scheduler={**POLY, "end_lr": 1.0e-4}),
        "lr_scheduler.end_lr = 0.0001 should be 0",
    ),
    "PaddleSeg's own end of the rate": (
        quick_start(lr_scheduler={"type": "PolynomialDecay", "learning_rate": 0.01}),
        "lr_scheduler.end_lr = 0.0001 should be 0",
    ),
    "the same in the first form": (
        without("lr_scheduler", learning_rate={"value": 0.1, "decay": {**FIRST_POLY["decay"], "end_lr": 0.1}}),
        "learning_rate.decay.end_lr = 0.1 should be 0",
    ),
    "both forms": (quick_start(learning_rate=FIRST_POLY), "learning_rate: not known or not supported"),
    "a warmup from a high rate": (
        quick_start(lr_scheduler={**POLY, "warmup_iters": 10, "warmup_start_lr": 0.005}),
        "lr_scheduler.warmup_start_lr is not supported",
    ),
    "a decay over other steps": (
        quick_start(lr_scheduler={**POLY, "decay_steps": 5}),
        "lr_scheduler.decay_steps is not",
    ),
    "a word for a number": (
        quick_start(lr_scheduler={**POLY, "power": "much"}),
        "lr_scheduler.power should be a number",
    ),
    "half an iteration": (quick_start(iters=0.5), "iters should be a whole number"),
    "an unknown model": (
        quick_start(model=network("BiSeNetV3")),
        "model.type=BiSeNetV3: PaddleSeg has none of that name; did you mean BiSeNetV2",
    ),
    "an unknown backbone": (
        quick_start(model=network("FCN", "HRNet_W19")),
        "model.backbone.type=HRNet_W19: PaddleSeg has none of that name; did you mean HRNet_W18",
    ),
    "a model's unknown argument": (
        quick_start(model=network("BiSeNetV2", lambda_=1)),
        "model.lambda_: not known or not supported here; did you mean lambd?",
    ),
    "a missing backbone": (quick_start(model=network("PSPNet")), "model.backbone has no value: PSPNet needs it"),
    "a transform in place of a model": (
        quick_start(model=network("Normalize")),
        "model.type=Normalize: PaddleSeg has none",
    ),
    "classes that differ": (
        quick_start(model=network("BiSeNetV2", num_classes=19)),
        "model.num_classes is 19, and that of the data set 2",
    ),
    "an unknown loss": (
        heads("CrossEntropy"),
        "loss.types[0].type=CrossEntropy: PaddleSeg has none of that name; did you",
    ),
    "a loss's unknown argument": (
        heads({"type": "CrossEntropyLoss", "weights": [1, 2]}),
        "loss.types[0].weights: not known or not supported here; did you mean weight?",
    ),
    "a loss that ignores another label": (
        heads({"type": "CrossEntropyLoss", "ignore_index": 0}),
        "loss.types[0].ignore_index is 0, and that of the data set 255",
    ),
    "a loss of edges": (
        heads({"type": "BCELoss", "edge_label": True}),
        "loss.types[0].type = BCELoss needs more than logits and labels",
    ),
    "a loss between networks": (
        heads("DistillCrossEntropyLoss"),
        "loss.types[0].type = DistillCrossEntropyLoss needs more",
    ),
    "losses and weights that do not fit": (
        quick_start(loss=losses("CrossEntropyLoss", "DiceLoss", coef=[1])),
        "loss.coef = [1] for 2 types",
    ),
    "a weight that is none": (
        quick_start(loss=losses("CrossEntropyLoss", coef=["much"])),
        "loss.coef should be a list of numbers, and is ['much']",
    ),
    "an unknown transform": (
        transformed(train=[{"type": "RandomFlip"}, *FINE]),
        "train_dataset.transforms[0].type=RandomFlip: PaddleSeg has none of that name; did you mean",
    ),
    "a transform's unknown argument": (
        transformed(val=[{**resize(64, 64), "keep": True}, NORMALIZE]),
        "val_dataset.transforms[0].keep: not known or not supported",
    ),
    "a size that is none": (
        transformed(train=[{"type": "Resize", "target_size": 512}]),
        "train_dataset.transforms[0].target_size = 512 should be [width, height]",
    ),
    "no size at all": (
        transformed(train=[STEP_SCALING, FLIP, NORMALIZE], val=[NORMALIZE]),
        "train_dataset.transforms bring images to no one size",
    ),
    "padding to a ratio": (
        transformed(val=[{"type": "PaddingByAspectRatio"}, NORMALIZE]),
        "val_dataset.transforms[0].type = PaddingByAspectRatio pads images",
    ),
    "transforms that are no list": (transformed(val=NORMALIZE), "val_dataset.transforms should be a list"),
    "targets of MaskFormer": (
        transformed(train=[crop(64, 64), {"type": "GenerateInstanceTargets", "num_classes": 2}]),
        "train_dataset.transforms[1].type = GenerateInstanceTargets",
    ),
    "a data set of which we know nothing": (
        {**quick_start(), **data("CHASEDB1", "data/CHASE_DB1", FINE, FINE)},
        "train_dataset.type = CHASEDB1 is none of Dataset, OpticDiscSeg, Cityscapes, PascalVOC, ADE20K",
    ),
    "two data sets": (
        {**on("cityscapes", val_dataset={"type": "ADE20K"}), "model": network("UNet")},
        "val_dataset.type is ADE20K, and that of train_dataset Cityscapes",
    ),
    "training on validation images": (
        on("pascal_voc12", train_dataset={"mode": "trainval"}, model=network("UNet")),
        "train_dataset.mode = trainval should be train or trainaug",
    ),
    "edges of labels": (
        on("cityscapes", train_dataset={"edge": True}, model=network("UNet")),
        "train_dataset.edge is not",
    ),
    "grey images": (
        {**quick_start(), **lists("data/mine", FINE, FINE, img_channels=1)},
        "train_dataset.img_channels = 1: images have 3 channels here",
    ),
    "lists of no classes": (
        {**quick_start(), **lists("data/mine", FINE, FINE, num_classes=None)},
        "train_dataset.num_classes has no value",
    ),
    "no list": (
        {**quick_start(), **data("Dataset", "data/mine", FINE, FINE, both={"num_classes": 2})},
        "train_dataset.train_path has no value",
    ),
    "augmentation of tests": (
        quick_start(test_config={"aug_eval": True, "scales": 0.5}),
        "test_config.aug_eval is not supported: one image gives one prediction",
    ),
    "the same in later versions": (
        quick_start(test={"is_slide": True, "stride": [1, 1]}),
        "test.is_slide is not supported",
    ),
    "training in a static graph": (quick_start(to_static_training=True), "to_static_training is not supported"),
    "pictures by channels last": (
        quick_start(**{"global": {"data_format": "NHWC"}}),
        "global.data_format = NHWC is not supported",
    ),
    "an unknown key of the runtime": (
        quick_start(train={"use_ema": True}),
        "train.use_ema: not known or not supported",
    ),
    "padding of nothing": (
        transformed(val=[padding(64, 64), {"type": "Normalise"}]),
        "val_dataset.transforms[1].type=Normal",
    ),
    "a word for a mapping": (quick_start(model="BiSeNetV2"), "model should be a mapping, and is 'BiSeNetV2'"),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_line_with_file_and_key(tmp_path, monkeypatch, config, words):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, config)
    with pytest.raises(ConfigLoadError) as refusal:
        for group in ("", "dataset/", "model/"):  # as Hydra asks for them
            PaddleSegSource("segslim", "paddleseg://").load_config(f"{group}paddleseg/{file}")
    assert str(refusal.value).startswith(f"{file}: {words}")
    assert "\n" not in str(refusal.value)
