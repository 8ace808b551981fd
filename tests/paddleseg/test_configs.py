"""Configs in the shapes of PaddleSeg's documentation and tutorials compose to configs of ours."""

import pytest
from omegaconf import OmegaConf

from segslim.config import validate
from tests.paddleseg.fragments import (
    ADDRESS,
    DISTORT,
    FIRST_POLY,
    FLIP,
    NORMALIZE,
    POLY,
    STEP_SCALING,
    base,
    crop,
    lists,
    losses,
    mixed,
    network,
    on,
    padding,
    quick_start,
    resize,
    write,
)

MODELS = "paddleseg.models."
FINE = [{"type": "Resize", "target_size": [256, 256]}, NORMALIZE]
MINE = lists("data/mine", [STEP_SCALING, crop(256, 192), FLIP, DISTORT, NORMALIZE], [resize(256, 192), NORMALIZE], 3)
OHEM = {"type": "OhemCrossEntropyLoss", "min_kept": 130000}


def resnet(depth, **options):
    return {"type": f"ResNet{depth}_vd", "output_stride": 8, "pretrained": ADDRESS.format(depth), **options}


HRNET = {"type": "HRNet_W18", "align_corners": False, "pretrained": ADDRESS.format("hrnet_w18_ssld")}
OCR = {"loss": losses("CrossEntropyLoss", "CrossEntropyLoss", coef=[1, 0.4])}
AUXILIARY = losses("CrossEntropyLoss", coef=[1, 0.4])

# name: (the file, what our config then says)
CONFIGS = {
    "quick start of bisenet": (
        quick_start(),
        {
            "model.name": "mine",
            "model.network._target_": MODELS + "BiSeNetV2",
            "model.network.num_classes": 2,
            "model.loss.coef": [1, 1, 1, 1, 1],
            "model.loss.types.0": {"_target_": MODELS + "CrossEntropyLoss", "ignore_index": 255},
            "dataset.name": "optic_disc",
            "dataset.source._target_": "segslim.data.OpticDisc",
            "dataset.source.root": "data/optic_disc_seg",
            "dataset.size": [512, 512],
            "dataset.train_transforms.0": {"_target_": "paddleseg.transforms.Resize", "target_size": [512, 512]},
            "dataset.train_transforms.1": {"_target_": "paddleseg.transforms.RandomHorizontalFlip"},
            "train.iters": 1000,
            "train.batch_size": 4,
            "train.learning_rate": 0.01,
            "train.momentum": 0.9,
            "train.weight_decay": 4.0e-5,
            "train.power": 0.9,
            "train.warmup_iters": 0,
            "retrain.iters": 1000,
            "retrain.learning_rate": 0.01,
        },
    ),
    "quick start with its runtime": (
        on("runtime", **quick_start()),
        {"seed": 7, "device": "cpu", "num_workers": 1, "train.amp": False, "train.checkpoint": None},
    ),
    "quick start evaluated at full size": (
        quick_start(val_dataset={**quick_start()["val_dataset"], "transforms": [NORMALIZE]}),
        {"dataset.size": [512, 512], "dataset.val_transforms.0.target_size": [512, 512]},
    ),
    "pp_liteseg on lists": (
        {
            **quick_start(),
            **lists("data/optic_disc_seg", [STEP_SCALING, crop(512, 512), FLIP, DISTORT, NORMALIZE], [NORMALIZE]),
            "model": network("PPLiteSeg", {"type": "STDC2", "pretrained": ADDRESS.format("PP_STDCNet2")}),
            "loss": losses("CrossEntropyLoss", coef=[1, 1, 1]),
        },
        {
            "dataset.name": "optic_disc_seg",
            "dataset.source": {
                "_target_": "segslim.data.FileList",
                "root": "data/optic_disc_seg",
                "train_list": "train_list.txt",
                "val_list": "val_list.txt",
                "separator": " ",
            },
            "model.network.backbone": {"_target_": MODELS + "STDC2", "pretrained": None},
            "dataset.train_transforms.1.crop_size": [512, 512],
        },
    ),
    "fcn_hrnetw18 on cityscapes": (
        on("cityscapes", model=network("FCN", HRNET, num_classes=19, pretrained=None, backbone_indices=[-1])),
        {
            "model.network.backbone": {"_target_": MODELS + "HRNet_W18", "align_corners": False, "pretrained": None},
            "model.network.num_classes": 19,
            "dataset.source._target_": "segslim.data.Cityscapes",
            "dataset.size": [1024, 512],
            "train.iters": 80000,
        },
    ),
    "fcn_hrnetw48 on voc with more images": (
        on("pascal_voc12aug", model=network("FCN", {"type": "HRNet_W48"}, backbone_indices=[-1]), batch_size=4),
        {
            "dataset.source._target_": "segslim.data.Voc",
            "dataset.source.augmented": True,
            "dataset.num_classes": 21,
            "dataset.val_transforms.0": {"_target_": "paddleseg.transforms.Resize", "target_size": [512, 512]},
            "train.batch_size": 4,
            "train.iters": 40000,
        },
    ),
    "deeplabv3p_resnet50_os8 on cityscapes": (
        on(
            "cityscapes",
            model=network(
                "DeepLabV3P",
                resnet(50, multi_grid=[1, 2, 4]),
                num_classes=19,
                backbone_indices=[0, 3],
                aspp_ratios=[1, 12, 24, 36],
                aspp_out_channels=256,
                align_corners=False,
                pretrained=None,
            ),
        ),
        {
            "model.network.backbone.multi_grid": [1, 2, 4],
            "model.network.aspp_ratios": [1, 12, 24, 36],
            "model.network.align_corners": False,
        },
    ),
    "deeplabv3p_resnet101_os8 at 769": (
        on("cityscapes_769", model=network("DeepLabV3P", resnet(101), align_corners=True)),
        {"dataset.size": [2049, 1025], "dataset.train_transforms.1.crop_size": [769, 769]},
    ),
    "deeplabv3_resnet50_os8 on voc": (
        on("pascal_voc12", model=network("DeepLabV3", resnet(50), backbone_indices=[3], aspp_ratios=[1, 12, 24, 36])),
        {"dataset.source.augmented": False, "model.network.num_classes": 21},
    ),
    "pspnet_resnet50_os8 on ade20k": (
        on(
            "ade20k",
            model=network("PSPNet", resnet(50), enable_auxiliary_loss=True, align_corners=False),
            loss=AUXILIARY,
        ),
        {
            "dataset.source._target_": "segslim.data.Ade20k",
            "dataset.num_classes": 150,
            "dataset.size": [512, 512],
            "model.loss.coef": [1, 0.4],
        },
    ),
    "ocrnet_hrnetw18 on cityscapes": (
        on("cityscapes", model=network("OCRNet", HRNET, backbone_indices=[0]), **OCR),
        {"model.network._target_": MODELS + "OCRNet", "model.loss.types.1.ignore_index": 255},
    ),
    "unet on cityscapes": (
        on("cityscapes", model=network("UNet", num_classes=19, use_deconv=False, pretrained=None), batch_size=4),
        {"model.network": {"_target_": MODELS + "UNet", "num_classes": 19, "use_deconv": False, "pretrained": None}},
    ),
    "unet_plusplus": (
        on("cityscapes", model=network("UNetPlusPlus", in_channels=3, num_classes=19, use_deconv=False)),
        {"model.network.in_channels": 3},
    ),
    "attention_unet": (
        on("cityscapes", model=network("AttentionUNet", num_classes=19)),
        {"model.network._target_": MODELS + "AttentionUNet"},
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
    "hardnet with bootstrapping and warmup": (
        on(
            "cityscapes_1024x1024",
            model=network("HarDNet", pretrained=None),
            optimizer={"type": "sgd", "momentum": 0.9, "weight_decay": 5.0e-4},
            lr_scheduler={"learning_rate": 0.02, "warmup_iters": 1000, "warmup_start_lr": 1.0e-5},
            loss={
                "types": [{"type": "BootstrappedCrossEntropyLoss", "min_K": 4096, "loss_th": 0.3}],
                "coef": [1],
            },
        ),
        {
            "train.warmup_iters": 1000,
            "retrain.warmup_iters": 1000,
            "train.weight_decay": 5.0e-4,
            "model.loss.types.0": {
                "_target_": MODELS + "BootstrappedCrossEntropyLoss",
                "min_K": 4096,
                "loss_th": 0.3,
                "ignore_index": 255,
            },
        },
    ),
    "pp_liteseg_stdc1 on cityscapes": (
        on(
            ["cityscapes", "runtime"],
            batch_size=4,
            iters=160000,
            lr_scheduler={"warmup_iters": 1000, "warmup_start_lr": 1.0e-5, "learning_rate": 0.005},
            loss=losses(OHEM, OHEM, OHEM),
            model=network("PPLiteSeg", {"type": "STDC1"}, arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64]),
        ),
        {"train.iters": 160000, "model.loss.types.2.min_kept": 130000, "seed": 7, "train.power": 0.9},
    ),
    "segformer_b0 trained by sgd": (
        on("cityscapes", model=network("SegFormer", "MixVisionTransformer_B0", embedding_dim=256, num_classes=19)),
        {"model.network.backbone._target_": MODELS + "MixVisionTransformer_B0"},
    ),
    "stdcseg with its detail loss": (
        on(
            "cityscapes",
            model=network("STDCSeg", {"type": "STDC1", "pretrained": "weights/STDCNet1.pdparams"}, pretrained=None),
            loss=losses(*["OhemCrossEntropyLoss"] * 3, "DetailAggregateLoss"),
        ),
        {
            "model.loss.types.3": {"_target_": MODELS + "DetailAggregateLoss", "ignore_index": 255},
            "model.network.backbone.pretrained": "weights/STDCNet1.pdparams",
        },
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
        {"dataset.source.train_list": "../../lists/train.txt", "dataset.source.root": "/data/mine"},
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
    "portraits with a mean and deviation": (
        {
            **quick_start(
                model=network("PPHumanSegLite", align_corners=False, num_classes=2), loss=losses("CrossEntropyLoss")
            ),
            **lists(
                "data/mini_supervisely",
                [
                    resize(192, 192),
                    {"type": "RandomScaleAspect"},
                    crop(192, 192),
                    {**NORMALIZE, "mean": [0.4, 0.4, 0.4], "std": [0.2] * 3},
                ],
                [resize(192, 192), {**NORMALIZE, "mean": [0.4, 0.4, 0.4], "std": [0.2] * 3}],
            ),
        },
        {"dataset.val_transforms.1.mean": [0.4, 0.4, 0.4], "dataset.size": [192, 192]},
    ),
    "mobileseg on mobilenet": (
        {
            **base("Cityscapes", "data/cityscapes", [STEP_SCALING, crop(1024, 512), NORMALIZE], [NORMALIZE]),
            "model": network("MobileSeg", "MobileNetV3_large_x1_0", cm_bin_sizes=[1, 2, 4], cm_out_ch=128),
            "loss": losses("OhemCrossEntropyLoss", coef=[1, 1, 1]),
        },
        {"model.network.backbone._target_": MODELS + "MobileNetV3_large_x1_0"},
    ),
    "lraspp, whose backbone PaddleSeg does not export": (
        on("cityscapes", model=network("LRASPP", "MobileNetV3_large_x1_0_os8", backbone_indices=[0, 1, 3])),
        {"model.network.backbone._target_": MODELS + "backbones.mobilenetv3.MobileNetV3_large_x1_0_os8"},
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


def at(config, key):
    for part in key.split("."):
        config = config[int(part) if isinstance(config, list) else part]
    return config


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_paddleseg_config_becomes_ours(composed, tmp_path, config, expected):
    ours = composed(f"paddleseg={write(tmp_path, config)}", "compress=prune", "compress.ratio=0.3")
    assert validate(ours).compress.ratio == 0.3
    plain = OmegaConf.to_container(ours, resolve=True)
    assert {key: at(plain, key) for key in expected} == expected


def test_the_command_line_wins_over_the_file_and_chooses_other_options(composed, tmp_path):
    file = write(tmp_path, quick_start())
    typed = [
        "train.iters=5",
        "dataset.size=[64,96]",
        "retrain.learning_rate=0.5",
        "model=unet",
        "dataset.root=/elsewhere",
    ]
    ours = validate(composed(f"paddleseg={file}", *typed))
    assert (ours.train.iters, ours.retrain.iters, ours.retrain.learning_rate) == (5, 5, 0.5)
    assert ours.model.name == "unet" and ours.model.network["num_classes"] == 2
    assert ours.dataset.source["root"] == "/elsewhere" and ours.dataset.name == "optic_disc"
    assert ours.dataset.train_transforms[0]["target_size"] == ours.dataset.val_transforms[0]["target_size"] == [64, 96]


def test_the_file_replaces_our_model_and_data_set_as_a_whole(composed, tmp_path):
    ours = composed(f"paddleseg={write(tmp_path, quick_start())}")
    assert set(ours.model.network) == {"_target_", "num_classes", "pretrained"}
    assert "train_images" not in ours.dataset.source


def test_weights_that_would_be_downloaded_are_named_in_a_warning(composed, tmp_path, caplog):
    file = write(tmp_path, CONFIGS["fcn_hrnetw18 on cityscapes"][0])
    composed(f"paddleseg={file}")
    assert (
        f"{file}: model.backbone.pretrained=https://example.com/pretrained/hrnet_w18_ssld.tar.gz is not" in caplog.text
    )
    assert "train.checkpoint=" in caplog.text and "resized to [1024, 512]" in caplog.text


def test_an_absolute_path_and_the_long_suffix_will_do(composed, tmp_path):
    write(tmp_path, quick_start(), "mine.yaml")
    ours = composed(f"paddleseg={tmp_path}/configs/net/mine.yaml")
    assert ours.model.network._target_ == MODELS + "BiSeNetV2"
