"""Configs that vary the data, the losses, the schedule or the runtime, and what they become."""

from tests.paddleseg.fragments import (
    AUXILIARY,
    DISTORT,
    FIRST_POLY,
    FLIP,
    MODELS,
    NORMALIZE,
    POLY,
    STEP_SCALING,
    crop,
    lists,
    losses,
    mixed,
    network,
    on,
    padding,
    quick_start,
    resize,
)

FINE = [{"type": "Resize", "target_size": [256, 256]}, NORMALIZE]
MINE = lists("data/mine", [STEP_SCALING, crop(256, 192), FLIP, DISTORT, NORMALIZE], [resize(256, 192), NORMALIZE], 3)

# name: (the file, what our config then says)
VARIANTS = {
    "quick start with its runtime": (
        on("runtime", **quick_start()),
        {"seed": 7, "device": "cpu", "num_workers": 1, "train.amp": False, "train.checkpoint": None},
    ),
    "quick start evaluated at full size": (
        quick_start(val_dataset={**quick_start()["val_dataset"], "transforms": [NORMALIZE]}),
        {"dataset.size": [512, 512], "dataset.val_transforms.0.target_size": [512, 512]},
    ),
    "fastscnn at 1024x1024 with a schedule of its own": (
        {
            **on("cityscapes_1024x1024", model=network("FastSCNN", num_classes=19), loss=AUXILIARY),
            "lr_scheduler": {"_inherited_": False, **POLY, "learning_rate": 0.05},
            "optimizer": {"weight_decay": 4.0e-5},
        },
        {"dataset.size": [1024, 1024], "train.learning_rate": 0.05, "train.momentum": 0.9},
    ),
    "fastscnn with the first form of the schedule": (
        {**{key: value for key, value in quick_start().items() if key != "lr_scheduler"}, "learning_rate": FIRST_POLY},
        {"train.learning_rate": 0.01, "train.power": 0.9},
    ),
    "a rate that does not decay": (
        {
            **{key: value for key, value in quick_start().items() if key != "lr_scheduler"},
            "learning_rate": {"value": 0.1},
        },
        {"train.learning_rate": 0.1, "train.power": 0},
    ),
    "mixed losses": (
        on(
            "cityscapes",
            model=network("OCRNet", "HRNet_W48", backbone_indices=[0]),
            loss=losses(mixed("CrossEntropyLoss", "LovaszSoftmaxLoss", coef=[0.8, 0.2]), coef=[1, 0.4]),
        ),
        {
            "model.loss.types.0": {
                "_target_": MODELS + "MixedLoss",
                "losses": [
                    {"_target_": MODELS + "CrossEntropyLoss", "ignore_index": 255},
                    {"_target_": MODELS + "LovaszSoftmaxLoss", "ignore_index": 255},
                ],
                "coef": [0.8, 0.2],
            },
        },
    ),
    "class weights and another label that is ignored": (
        {
            **quick_start(),
            **lists("data/mine", FINE, FINE, 3, ignore_index=0),
            "loss": losses(
                {"type": "CrossEntropyLoss", "weight": [0.1, 0.3, 0.6], "ignore_index": 0}, coef=[1, 1, 1, 1, 1]
            ),
        },
        {
            "dataset.ignore_index": 0,
            "model.loss.types.0.weight": [0.1, 0.3, 0.6],
            "model.loss.types.0.ignore_index": 0,
        },
    ),
    "vessels by a dice loss": (
        {
            **quick_start(model=network("UNet", num_classes=2), loss=losses("DiceLoss")),
            **lists(
                "data/CHASE",
                [STEP_SCALING, crop(128, 128), FLIP, {"type": "RandomVerticalFlip"}, NORMALIZE],
                [NORMALIZE],
            ),
        },
        {"model.loss.types.0._target_": MODELS + "DiceLoss", "dataset.size": [128, 128]},
    ),
    "focal loss": (
        quick_start(loss=losses({"type": "FocalLoss", "alpha": 0.25, "gamma": 2.0}, coef=[1] * 5)),
        {"model.loss.types.0": {"_target_": MODELS + "FocalLoss", "alpha": 0.25, "gamma": 2.0, "ignore_index": 255}},
    ),
    "lists by commas, of three classes given by the model": (
        {
            **quick_start(
                model=network("BiseNetV1", "ResNet18_vd", num_classes=3),
                loss=losses("OhemCrossEntropyLoss", coef=[1, 1, 1]),
            ),
            **lists("data/mine", FINE, FINE, None, separator=","),
        },
        {"dataset.source.separator": ",", "dataset.num_classes": 3, "dataset.name": "mine"},
    ),
    "lists outside the root": (
        {
            **quick_start(),
            **lists("/data/mine", FINE, FINE, train_path="/lists/train.txt", val_path="/lists/val.txt"),
        },
        {"dataset.source.train_list": "/lists/train.txt", "dataset.source.root": "/data/mine"},
    ),
    "what is exported is what is measured": (
        quick_start(
            val_dataset={**quick_start()["val_dataset"], "transforms": [NORMALIZE]},
            export={"transforms": [resize(320, 320), NORMALIZE]},
        ),
        {"dataset.size": [320, 320], "dataset.train_transforms.0.target_size": [512, 512]},
    ),
    "resized by keeping the ratio, then padded": (
        {
            **quick_start(),
            **lists(
                "data/mine", [crop(64, 64), NORMALIZE], [resize(96, 64, keep_ratio=True), padding(96, 64), NORMALIZE]
            ),
        },
        {
            "dataset.size": [96, 64],
            "dataset.val_transforms.0.keep_ratio": True,
            "dataset.train_transforms.0.crop_size": [64, 64],
        },
    ),
    "momentum by its name": (
        quick_start(optimizer={"type": "Momentum", "weight_decay": "4e-5"}),
        {"train.momentum": 0.9, "train.weight_decay": 4.0e-5},
    ),
    "sgd without momentum": (
        quick_start(optimizer={"type": "SGD"}),
        {"train.momentum": 0.0, "train.weight_decay": 0.0},
    ),
    "no augmentation of tests": (quick_start(test_config={}), {"train.iters": 1000}),
    "mixed precision": (quick_start(train={"precision": "fp16"}), {"train.amp": True, "train.batch_size": 4}),
    "a user's own data, from the folder up": (
        {**quick_start(model=network("ENet"), loss=losses("CrossEntropyLoss")), **MINE},
        {"model.network.num_classes": 3, "dataset.size": [256, 192]},
    ),
}
