"""The PaddleSeg networks that the channel graph is proven on, each built small enough for a test but structurally
as published.
"""

from typing import Any

from segslim.paddle_compat import import_paddle

paddle = import_paddle()

from paddleseg import models  # noqa: E402
from paddleseg.models import backbones  # noqa: E402

CLASSES = 3


def _with_resnet18(name: str, **options: Any) -> Any:
    return getattr(models, name)(num_classes=CLASSES, backbone=backbones.ResNet18_vd(output_stride=8), **options)


def _with_resnet50(name: str, **options: Any) -> Any:
    return getattr(models, name)(num_classes=CLASSES, backbone=backbones.ResNet50_vd(output_stride=8), **options)


TUTORIAL = {
    "bisenetv2": lambda: models.BiSeNetV2(CLASSES),
    "fcn_hrnet": lambda: models.FCN(CLASSES, backbones.HRNet_W18(), backbone_indices=(-1,)),
    "fast_scnn": lambda: models.FastSCNN(CLASSES),
    "hardnet": lambda: models.HarDNet(CLASSES),
    "unet": lambda: models.UNet(CLASSES),
}

OTHERS = {
    "deeplabv3": lambda: _with_resnet18("DeepLabV3", backbone_indices=(3,)),
    "deeplabv3p": lambda: _with_resnet50("DeepLabV3P"),
    "pspnet": lambda: _with_resnet18("PSPNet"),
    "gcnet": lambda: _with_resnet18("GCNet"),
    "bisenetv1": lambda: models.BiseNetV1(CLASSES, backbones.ResNet18_vd(output_stride=32)),
    "stdcseg": lambda: models.STDCSeg(CLASSES, backbones.STDC1(), use_boundary_2=True, use_boundary_4=True),
    "pp_liteseg": lambda: models.PPLiteSeg(CLASSES, backbones.STDC1()),
    "ddrnet": lambda: models.DDRNet_23(num_classes=CLASSES, enable_auxiliary_loss=True),
    "ocrnet": lambda: models.OCRNet(CLASSES, backbones.HRNet_W18_Small_V1(), backbone_indices=(0,)),
    "enet": lambda: models.ENet(CLASSES),
    "segnet": lambda: models.SegNet(CLASSES),
    "unet_plusplus": lambda: models.UNetPlusPlus(CLASSES),
    "danet": lambda: _with_resnet18("DANet", backbone_indices=(2, 3)),
    "sfnet": lambda: models.SFNet(
        CLASSES, backbones.ResNet18_vd(output_stride=32), backbone_indices=(0, 1, 2, 3), enable_auxiliary_loss=True
    ),
    "upernet": lambda: models.UPerNet(
        CLASSES, backbones.ResNet18_vd(output_stride=32), backbone_indices=(0, 1, 2, 3), enable_auxiliary_loss=True
    ),
    "lraspp": lambda: models.LRASPP(CLASSES, backbones.MobileNetV3_large_x1_0()),
    "mobileseg": lambda: models.MobileSeg(CLASSES, backbones.MobileNetV3_large_x1_0()),
    "pphumanseg_lite": lambda: models.PPHumanSegLite(CLASSES),
    "segformer": lambda: models.SegFormer(CLASSES, backbones.MixVisionTransformer_B0(), embedding_dim=256),
}
