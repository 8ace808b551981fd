"""Configs in the shapes of PaddleSeg's documentation and tutorials compose to configs of ours."""

import pytest
from omegaconf import OmegaConf

from segslim.config import validate
from tests.paddleseg.fragments import (
    ADAMW,
    ADDRESS,
    AUXILIARY,
    FIRST_POLY,
    FLIP,
    MODELS,
    NORMALIZE,
    POLY,
    STEP_SCALING,
    crop,
    data,
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

RESIZE = "paddleseg.transforms.Resize"
FINE = [resize(256, 256), NORMALIZE]
OHEM = {"type": "OhemCrossEntropyLoss", "min_kept": 130000}
HRNET = {"type": "HRNet_W18", "align_corners": False, "pretrained": ADDRESS.format("hrnet_w18_ssld")}
RESNET = {"type": "ResNet50_vd", "output_stride": 8, "multi_grid": [1, 2, 4]}
MEAN = {**NORMALIZE, "mean": [0.4, 0.4, 0.4]}
WITHOUT_SCHEDULE = {key: value for key, value in quick_start().items() if key != "lr_scheduler"}
FULL_SIZE = {**quick_start()["val_dataset"], "transforms": [NORMALIZE]}

# name: (the file, what our config then says)
NETWORKS = {
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
            "dataset.source.root": None,
            "dataset.size": [512, 512],
            "dataset.train_transforms.0": {"_target_": RESIZE, "target_size": [512, 512]},
            "dataset.train_transforms.1": {"_target_": "paddleseg.transforms.RandomHorizontalFlip"},
            "dataset.recipe": {"iters": 1000, "retrain_iters": 1000, "batch_size": 4, "learning_rate": 0.01},
            **{"train.iters": 1000, "train.batch_size": 4, "train.learning_rate": 0.01, "train.momentum": 0.9},
            **{"train.weight_decay": 4.0e-5, "train.power": 0.9, "train.warmup_iters": 0},
            **{"retrain.iters": 1000, "retrain.learning_rate": 0.01},
        },
    ),
    "pp_liteseg on lists": (
        {
            **quick_start(),
            **lists("data/optic_disc_seg", [STEP_SCALING, crop(512, 512), FLIP, NORMALIZE], [NORMALIZE]),
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
            "model.network.backbone": {"_target_": MODELS + "STDC2", "pretrained": ADDRESS.format("PP_STDCNet2")},
            "dataset.train_transforms.1.crop_size": [512, 512],
        },
    ),
    "fcn_hrnetw18 on cityscapes": (
        on("cityscapes", model=network("FCN", HRNET, num_classes=19, pretrained=None, backbone_indices=[-1])),
        {
            "model.network.backbone": {
                "_target_": MODELS + "HRNet_W18",
                "align_corners": False,
                "pretrained": HRNET["pretrained"],
            },
            "model.network.num_classes": 19,
            "dataset.source.images": "leftImg8bit/{split}",
            "dataset.size": [2048, 1024],  # Cityscapes' own
            "train.iters": 80000,
        },
    ),
    "fcn_hrnetw48 on voc with more images": (
        on("pascal_voc12aug", model=network("FCN", {"type": "HRNet_W48"}, backbone_indices=[-1]), batch_size=4),
        {
            "dataset.source._target_": "segslim.data.Voc",
            "dataset.source.augmented": True,
            "dataset.num_classes": 21,
            "dataset.val_transforms.0": {"_target_": "paddleseg.transforms.Padding", "target_size": [512, 512]},
            "train.batch_size": 4,
            "train.iters": 40000,
        },
    ),
    "deeplabv3p_resnet50_os8 at 769": (
        on("cityscapes_769", model=network("DeepLabV3P", RESNET, aspp_ratios=[1, 12, 24, 36], align_corners=True)),
        {
            "model.network.backbone.multi_grid": [1, 2, 4],
            "model.network.aspp_ratios": [1, 12, 24, 36],
            "model.network.align_corners": True,
            "dataset.size": [2049, 1025],
            "dataset.train_transforms.1.crop_size": [769, 769],
        },
    ),
    "pspnet_resnet50_os8 on ade20k": (
        on("ade20k", model=network("PSPNet", RESNET, enable_auxiliary_loss=True), loss=AUXILIARY),
        {
            "dataset.source.splits": ["training", "validation"],
            "dataset.num_classes": 150,
            "dataset.size": [512, 512],
            "model.loss.coef": [1, 0.4],
        },
    ),
    "hardnet with bootstrapping and warmup": (
        on(
            "cityscapes_1024x1024",
            model=network("HarDNet", pretrained=None),
            optimizer={"type": "sgd", "momentum": 0.9, "weight_decay": 5.0e-4},
            lr_scheduler={"learning_rate": 0.02, "warmup_iters": 1000, "warmup_start_lr": 1.0e-5},
            loss=losses({"type": "BootstrappedCrossEntropyLoss", "min_K": 4096, "loss_th": 0.3}),
        ),
        {
            "train.warmup_iters": 1000,
            "retrain.warmup_iters": 1000,
            "train.weight_decay": 5.0e-4,
            "model.loss.types.0._target_": MODELS + "BootstrappedCrossEntropyLoss",
            "model.loss.types.0.min_K": 4096,
            "model.loss.types.0.ignore_index": 255,
        },
    ),
    "pp_liteseg_stdc1 on cityscapes": (
        on(
            ["cityscapes", "runtime"],
            iters=160000,
            loss=losses(OHEM, OHEM, OHEM),
            model=network("PPLiteSeg", {"type": "STDC1"}, arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64]),
        ),
        {"train.iters": 160000, "model.loss.types.2.min_kept": 130000, "seed": 7, "train.power": 0.9},
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
    "lraspp, whose backbone PaddleSeg does not export": (
        on("cityscapes", model=network("LRASPP", "MobileNetV3_large_x1_0_os8", backbone_indices=[0, 1, 3])),
        {"model.network.backbone._target_": MODELS + "backbones.mobilenetv3.MobileNetV3_large_x1_0_os8"},
    ),
}
VARIANTS = {
    "the runtime of later versions": (
        on("runtime", **quick_start()),
        {"seed": 7, "device": "cpu", "num_workers": 1, "train.amp": False, "train.checkpoint": None},
    ),
    "mixed precision": (quick_start(train={"precision": "fp16"}), {"train.amp": True, "train.batch_size": 4}),
    "evaluation at full size": (
        quick_start(val_dataset=FULL_SIZE),
        {"dataset.size": [512, 512], "dataset.val_transforms.0.target_size": [512, 512]},
    ),
    "what is exported is what is measured": (
        quick_start(val_dataset=FULL_SIZE, export={"transforms": [resize(320, 320), NORMALIZE]}),
        {"dataset.size": [320, 320], "dataset.train_transforms.0.target_size": [512, 512]},
    ),
    "resized by keeping the ratio, then padded, with a mean": (
        {
            **quick_start(),
            **lists("data/mine", [crop(64, 64), MEAN], [resize(96, 64, keep_ratio=True), padding(96, 64), MEAN]),
        },
        {
            "dataset.size": [96, 64],
            "dataset.val_transforms.0.keep_ratio": True,
            "dataset.val_transforms.2.mean": [0.4, 0.4, 0.4],
            "dataset.train_transforms.0.crop_size": [64, 64],
        },
    ),
    "a schedule of its own": (
        {
            **on("cityscapes_1024x1024", model=network("FastSCNN", num_classes=19), loss=AUXILIARY),
            "lr_scheduler": {"_inherited_": False, **POLY, "learning_rate": 0.05},
            "optimizer": {"weight_decay": 4.0e-5},
        },
        {"dataset.size": [2048, 1024], "train.learning_rate": 0.05, "train.momentum": 0.9},
    ),
    "the first form of the schedule": (
        {**WITHOUT_SCHEDULE, "learning_rate": FIRST_POLY},
        {"train.learning_rate": 0.01, "train.power": 0.9},
    ),
    "a rate that does not decay": (
        {**WITHOUT_SCHEDULE, "learning_rate": {"value": 0.1}},
        {"train.learning_rate": 0.1, "train.power": 0},
    ),
    "momentum by its name": (
        quick_start(optimizer={"type": "Momentum", "weight_decay": "4e-5"}),
        {"train.momentum": 0.9, "train.weight_decay": 4.0e-5},
    ),
    "sgd without momentum": (
        quick_start(optimizer={"type": "SGD"}),
        {"train.momentum": 0.0, "train.weight_decay": 0.0},
    ),
    "adamw with groups, clipping, and a warmup from a rate": (
        quick_start(
            optimizer={**ADAMW, "custom_cfg": [{"name": "norm", "weight_decay_mult": 0.0}]},
            lr_scheduler={**POLY, "learning_rate": 6.0e-5, "power": 1, "warmup_iters": 150, "warmup_start_lr": "1e-6"},
        ),
        {
            "train.optimizer": {
                "_target_": "paddleseg.optimizers.optimizer.AdamW",
                "beta1": 0.9,
                "beta2": 0.999,
                "weight_decay": 0.01,
                "custom_cfg": [{"name": "norm", "weight_decay_mult": 0.0}],
            },
            "train.schedule": None,
            "train.warmup_start_lr": 1.0e-6,
            "retrain.optimizer._target_": "paddleseg.optimizers.optimizer.AdamW",
        },
    ),
    "a rate that does not end at 0": (
        quick_start(lr_scheduler={**POLY, "end_lr": 1.0e-5}),
        {"train.schedule": {"_target_": "paddle.optimizer.lr.PolynomialDecay", "end_lr": 1.0e-5, "power": 0.9}},
    ),
    "paddlesegs default end of the rate": (
        quick_start(lr_scheduler={"type": "PolynomialDecay", "learning_rate": 0.01}),
        {"train.schedule": {"_target_": "paddle.optimizer.lr.PolynomialDecay", "end_lr": 0.0001, "power": 1.0}},
    ),
    "steps, and what PaddleSeg does not read": (
        quick_start(
            lr_scheduler={"type": "StepDecay", "learning_rate": 0.001, "step_size": 460, "gamma": 0.95},
            learning_rate=FIRST_POLY,
        ),
        {"train.schedule": {"_target_": "paddle.optimizer.lr.StepDecay", "step_size": 460, "gamma": 0.95}},
    ),
    "sliding windows, scales and flips": (
        {
            **on("cityscapes", model=network("UNet")),
            "test_config": {
                **{"is_slide": True, "crop_size": [769, 769], "stride": [513, 513], "auc_roc": True},
                **{"aug_eval": True, "scales": [0.75, 1.0], "flip_horizontal": True},
            },
        },
        {
            "dataset.size": [769, 769],
            "evaluation": {
                **{"crop_size": [769, 769], "stride": [513, 513], "auc_roc": True},
                **{"scales": [0.75, 1.0], "flips": ["horizontal"]},
            },
        },
    ),
    "a list of PaddleSeg's own": (
        {**quick_start(), **data("DRIVE", "data/DRIVE", FINE, FINE)},
        {
            "dataset.source._target_": "segslim.data.FileList",
            "dataset.source.train_list": "train_list.txt",
            "dataset.num_classes": 2,
        },
    ),
    "a class of PaddleSeg's own, with edges": (
        {**quick_start(), **data("CocoStuff", "data/coco", FINE, FINE, train={"edge": True})}
        | {"loss": losses({"type": "BCELoss", "edge_label": True}, coef=[1] * 5)},
        {
            "dataset.source.dataset": "paddleseg.datasets.CocoStuff",
            "dataset.source._target_": "segslim.data.PaddleSegDataset",
            "dataset.num_classes": 171,
            "model.loss.types.0.edge_label": True,
        },
    ),
    "distillation of the quick start": (
        quick_start(distill_loss=losses("KLLoss", coef=[3])),
        {"retrain.distill.kind": "logits", "retrain.distill.weight": 1.5, "retrain.distill.temperature": 1.0},
    ),
    "averages and early stopping of later versions": (
        quick_start(train={"use_ema": True, "early_stop_intervals": 4}),
        {"train.ema": 0.999, "train.early_stop": 4},
    ),
    "mixed losses": (
        quick_start(loss=losses(mixed("CrossEntropyLoss", "DiceLoss", coef=[0.8, 0.2]), coef=[1] * 5)),
        {
            "model.loss.types.0._target_": MODELS + "MixedLoss",
            "model.loss.types.0.losses.1": {"_target_": MODELS + "DiceLoss", "ignore_index": 255},
            "model.loss.types.0.coef": [0.8, 0.2],
        },
    ),
    "class weights and another ignored label": (
        {
            **quick_start(),
            **lists("data/mine", FINE, FINE, 3, ignore_index=0),
            "loss": losses({"type": "CrossEntropyLoss", "weight": [0.1, 0.3, 0.6], "ignore_index": 0}, coef=[1] * 5),
        },
        {"dataset.ignore_index": 0, "model.loss.types.0.weight": [0.1, 0.3, 0.6], "model.loss.types.0.ignore_index": 0},
    ),
    "lists by commas, of classes given by the model": (
        {
            **quick_start(model=network("BiSeNetV2", num_classes=3)),
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
}
CONFIGS = NETWORKS | VARIANTS


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
    typed = ["train.iters=5", "dataset.size=[64,96]", "retrain.learning_rate=0.5", "model=unet", "dataset.root=/data"]
    ours = validate(composed(f"paddleseg={file}", *typed))
    assert (ours.train.iters, ours.retrain.iters, ours.retrain.learning_rate) == (5, 5, 0.5)
    assert ours.model.name == "unet" and ours.model.network["num_classes"] == 2
    assert ours.dataset.source["root"] == "/data" and ours.dataset.name == "optic_disc"
    assert ours.dataset.train_transforms[0]["target_size"] == ours.dataset.val_transforms[0]["target_size"] == [64, 96]


def test_nothing_of_our_own_model_and_data_set_is_left(composed, tmp_path):
    write(tmp_path, quick_start(), "mine.yaml")
    ours = composed(f"paddleseg={tmp_path}/configs/net/mine.yaml")
    assert set(ours.model.network) == {"_target_", "num_classes", "pretrained"}
    assert "train_images" not in ours.dataset.source


def test_each_change_is_warned_of_once(composed, tmp_path, caplog):
    file = write(tmp_path, CONFIGS["fcn_hrnetw18 on cityscapes"][0])
    composed(f"paddleseg={file}")
    composed(f"paddleseg={file}")
    (told,) = [record.message for record in caplog.records]
    assert f"{file}: val_dataset.transforms" in told and "[2048, 1024]" in told


def test_the_quick_start_data_is_downloaded_only_if_it_is_missing(composed, tmp_path, caplog):
    typed = f"paddleseg={write(tmp_path, quick_start())}"
    assert composed(typed).dataset.root is None and "data/optic_disc_seg does not exist" in caplog.text
    (tmp_path / "data" / "optic_disc_seg").mkdir(parents=True)
    assert composed(typed).dataset.root == "data/optic_disc_seg"
