"""One small config of every component that the installed PaddleSeg registers, made from its registries.

An argument without a default takes what ARGUMENTS holds for the class, or else for its name.
"""

from typing import Any

from segslim.paddleseg.components import Component, components

NUM_CLASSES = 6
VIT = {"type": "VisionTransformer", "img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 2}
BACKBONE = {"type": "ResNet18_vd", "output_stride": 8}
DEEP = {"type": "ResNet50_vd", "output_stride": 8}  # for networks that count on its channels

#: By a class, or by the name of an argument of any class: what it has to be given, small.
ARGUMENTS: dict[str, Any] = {
    "backbone": BACKBONE,
    "backbone_indices": [0, 1, 2, 3],
    "num_classes": NUM_CLASSES,
    "num_class": NUM_CLASSES,
    "channels": 32,
    "target_size": [64, 64],
    "long_size": 64,
    "short_size": 64,
    "transforms": [{"type": "Normalize"}],
    "losses": [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss"}],
    "coef": [0.8, 0.2],
    "min_K": 16,
    "loss_th": 0.3,
    "dataset_root": "data",
    "mode": "train",
    "imagenet_root": "data",
    "pssl_root": "data",
    "common_transforms": [{"type": "Resize", "target_size": [64, 64]}],
    "transforms1": [{"type": "RandomDistort"}],
    "transforms2": None,
    "DNLNet": {"backbone": DEEP},
    "EMANet": {"backbone": DEEP},
    "DANet": {"backbone_indices": [2, 3]},
    "DDRNet_23": {"num_classes": NUM_CLASSES},
    "ESPNetV1": {"num_classes": 19},
    "FCN": {"backbone": {"type": "HRNet_W18_Small_V1"}, "backbone_indices": [-1]},
    "HRNetW48Contrast": {
        "backbone": {"type": "HRNet_W18_Small_V1"}, "bb_channels": 240, "drop_prob": 0.1, "proj_dim": 32,
    },
    "GINet": {"backbone": DEEP},
    "ISANet": {"backbone": DEEP},
    "KNet": {
        "backbone_indices": [3],
        "channels": 256,
        "num_stages": 2,
        "kernel_update_head_params": {
            "num_heads": 2, "num_mask_fcs": 1, "feedforward_channels": 64, "in_channels": 256, "out_channels": 256,
            "dropout": 0.0, "conv_kernel_size": 1, "with_ffn": True, "num_classes": NUM_CLASSES,
        },
        "kernel_generate_head_params": {
            "head_layer": "FCNKernelHead", "in_channels": 512, "num_convs": 2, "concat_input": True, "channels": 256,
            "dropout_prob": 0.1, "num_classes": NUM_CLASSES,
        },
    },
    "LPSNet": {"depths": [1, 1, 1, 1, 1], "channels": [8, 16, 16, 32, 32], "scale_ratios": [1, 0.25]},
    "LRASPP": {"backbone": {"type": "MobileNetV3_small_x0_35"}, "backbone_indices": [0, 1, 3]},
    "MaskFormer": {"backbone": {"type": "SwinTransformer_tiny_patch4_window7_224_maskformer"}},
    "MLATransformer": {"in_channels": [64, 128, 256, 512], "mlahead_channels": 64},
    "MscaleOCRNet": {"backbone": {"type": "HRNet_W18_Small_V1"}, "backbone_indices": [0]},
    "MobileSeg": {"backbone": {"type": "MobileNetV2_x0_25"}},
    "OCRNet": {"backbone": {"type": "HRNet_W18_Small_V1"}, "backbone_indices": [0]},
    "PPLiteSeg": {"backbone": {"type": "STDC1"}},
    "PPMobileSeg": {"backbone": {"type": "MobileSeg_Tiny", "inj_type": "AAM", "out_feat_chs": [32, 64, 128]}},
    "PortraitNet": {"backbone": {"type": "MobileNetV2_x1_0"}},
    "PointRend": {"fpn_inplanes": [64, 128, 256, 512]},
    "PFPNNet": {"fpn_inplanes": [64, 128, 256, 512]},
    "RTFormer": {"base_channels": 16, "head_channels": 32, "use_injection": [True, True]},
    "SegFormer": {"backbone": {"type": "MixVisionTransformer_B0"}, "embedding_dim": 32},
    "LinearSegmenter": {"backbone": VIT},
    "MaskSegmenter": {"backbone": VIT, "h_embed_dim": 32, "h_depth": 1, "h_num_heads": 2},
    "SegNeXt": {
        "backbone": {"type": "MSCAN_T"},
        "decoder_cfg": {"channels": 64, "ham_channels": 64, "ham_kwargs": {"MD_R": 16}},
    },
    "SegmentationTransformer": {"backbone": VIT, "backbone_indices": [0, 1, 2, 3]},
    "SINet": {"num_classes": NUM_CLASSES},
    "STDCSeg": {"backbone": {"type": "STDC1"}},
    "TopFormer": {"backbone": {"type": "TopTransformer_Tiny"}},
    "UNet3Plus": {"num_classes": NUM_CLASSES},
    "UPerNetCAE": {
        "backbone": {"type": "CAE", "img_size": 64, "embed_dim": 768, "depth": 4, "num_heads": 2, "init_values": 0.1},
        "channels": 768, "fpn_channels": 768, "head_channels": 768, "channels_fpn": [768, 768, 768, 768],
    },
    "UPerNetViTAdapter": {"backbone": {"type": "ViTAdapter_Tiny"}, "channels": 32},
}  # fmt: skip


def node(name: str) -> dict[str, Any]:
    """`{type: name, ...}` with all that it cannot do without."""
    component = components()[name]
    _, required, _ = component.arguments()
    own = ARGUMENTS.get(name, {})
    return {"type": name, **{key: ARGUMENTS[key] for key in required if key not in own}, **own}


def registered(registry: str) -> list[Component]:
    return [component for component in components().values() if component.registry == registry]
