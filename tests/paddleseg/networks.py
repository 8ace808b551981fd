"""Configs of networks as PaddleSeg's documentation and tutorials train them, and what they become."""

from tests.paddleseg.fragments import (
    ADDRESS,
    AUXILIARY,
    DISTORT,
    FLIP,
    MODELS,
    NORMALIZE,
    STEP_SCALING,
    base,
    crop,
    lists,
    losses,
    network,
    on,
    quick_start,
    resize,
)

OHEM = {"type": "OhemCrossEntropyLoss", "min_kept": 130000}


def resnet(depth, **options):
    return {"type": f"ResNet{depth}_vd", "output_stride": 8, "pretrained": ADDRESS.format(depth), **options}


HRNET = {"type": "HRNet_W18", "align_corners": False, "pretrained": ADDRESS.format("hrnet_w18_ssld")}
OCR = {"loss": losses("CrossEntropyLoss", "CrossEntropyLoss", coef=[1, 0.4])}

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
}
