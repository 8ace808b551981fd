"""The parts that PaddleSeg's configs are made of, in the shapes of its documentation and tutorials."""

import copy

import yaml

STEP_SCALING = {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25}
DISTORT = {"type": "RandomDistort", "brightness_range": 0.4, "contrast_range": 0.4, "saturation_range": 0.4}
FLIP, NORMALIZE = {"type": "RandomHorizontalFlip"}, {"type": "Normalize"}
SGD = {"type": "sgd", "momentum": 0.9, "weight_decay": 4.0e-5}
ADAMW = {"type": "AdamW", "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}
POLY = {"type": "PolynomialDecay", "learning_rate": 0.01, "end_lr": 0, "power": 0.9}
FIRST_POLY = {"value": 0.01, "decay": {"type": "poly", "power": 0.9, "end_lr": 0.0}}
MODELS = "paddleseg.models."
ADDRESS = "https://example.com/pretrained/{}.tar.gz"


def crop(width, height):
    return {"type": "RandomPaddingCrop", "crop_size": [width, height]}


def resize(width, height, **options):
    return {"type": "Resize", "target_size": [width, height], **options}


def padding(width, height):
    return {"type": "Padding", "target_size": [width, height]}


def losses(*types, coef=None):
    entries = [{"type": entry} if isinstance(entry, str) else entry for entry in types]
    return {"types": entries, "coef": coef or [1] * len(entries)}


AUXILIARY = losses("CrossEntropyLoss", coef=[1, 0.4])  # of a network with a second head


def mixed(*types, coef):
    return {"type": "MixedLoss", "losses": losses(*types)["types"], "coef": coef}


def network(kind, backbone=None, **options):
    model = {"type": kind, **options}
    if backbone is not None:
        model["backbone"] = {"type": backbone} if isinstance(backbone, str) else backbone
    return model


def data(kind, root, training, validation, **options):
    """Both data sets; `options` are further keys of `train` and `val`, and of `both`."""
    return {
        f"{split}_dataset": {
            "type": kind,
            "dataset_root": root,
            "transforms": transforms,
            "mode": split,
            **options.get(split, {}),
            **options.get("both", {}),
        }
        for split, transforms in (("train", training), ("val", validation))
    }


def lists(root, training, validation, num_classes=2, **both):
    paths = {split: {f"{split}_path": f"{root}/{split}_list.txt"} for split in ("train", "val")}
    return data("Dataset", root, training, validation, **paths, both={"num_classes": num_classes, **both})


def quick_start(**changed):
    """A config in one file, as PaddleSeg's quick start has it."""
    return copy.deepcopy(
        {
            "batch_size": 4,
            "iters": 1000,
            **data(
                "OpticDiscSeg",
                "data/optic_disc_seg",
                [resize(512, 512), FLIP, NORMALIZE],
                [resize(512, 512), NORMALIZE],
            ),
            "optimizer": SGD,
            "lr_scheduler": POLY,
            "loss": losses("CrossEntropyLoss", coef=[1, 1, 1, 1, 1]),
            "model": network("BiSeNetV2", pretrained=None),
            **changed,
        }
    )


def base(kind, root, train, val, iters=80000, **changed):
    """A config that others inherit: all but the model."""
    schedule = {"batch_size": 2, "iters": iters, "optimizer": SGD, "lr_scheduler": POLY}
    return schedule | data(kind, root, train, val) | {"loss": losses("CrossEntropyLoss")} | changed


BASES = {
    "cityscapes": base(
        "Cityscapes", "data/cityscapes", [STEP_SCALING, crop(1024, 512), FLIP, DISTORT, NORMALIZE], [NORMALIZE]
    ),
    "cityscapes_769": base(
        "Cityscapes",
        "data/cityscapes",
        [STEP_SCALING, crop(769, 769), FLIP, NORMALIZE],
        [padding(2049, 1025), NORMALIZE],
    ),
    "pascal_voc12": base(
        "PascalVOC",
        "data/VOCdevkit/",
        [STEP_SCALING, crop(512, 512), FLIP, DISTORT, NORMALIZE],
        [padding(512, 512), NORMALIZE],
        iters=40000,
    ),
    "ade20k": base(
        "ADE20K",
        "data/ADEChallengeData2016/",
        [STEP_SCALING, crop(512, 512), FLIP, DISTORT, NORMALIZE],
        [NORMALIZE],
    ),
    "runtime": {
        "global": {"data_format": "NCHW", "device": "cpu", "num_workers": 1},
        "train": {
            "do_eval": False,
            "resume_model": None,
            "seed": 7,
            "precision": "fp32",
            "amp_level": "O1",
            "repeats": 1,
        },
        "test": {"aug_eval": False, "scales": 1.0, "flip_horizontal": False, "is_slide": False, "crop_size": None},
    },
}
BASES["pascal_voc12aug"] = {"_base_": "./pascal_voc12.yml", "train_dataset": {"mode": "trainaug"}}
BASES["cityscapes_1024x1024"] = {
    "_base_": "./cityscapes.yml",
    "train_dataset": {"transforms": [STEP_SCALING, crop(1024, 1024), FLIP, DISTORT, NORMALIZE]},
    "val_dataset": {"transforms": [NORMALIZE]},
}


def on(name, **changed):
    """A config that inherits from one of BASES, or several."""
    names = [name] if isinstance(name, str) else name
    files = [f"../_base_/{each}.yml" for each in names]
    return {"_base_": files[0] if isinstance(name, str) else files, **copy.deepcopy(changed)}


def write(folder, config, name="mine.yml"):
    """Writes `config` as configs/net/NAME beside the bases, and returns its path from `folder`."""
    for place, contents in [*((f"_base_/{base}.yml", BASES[base]) for base in BASES), (f"net/{name}", config)]:
        file = folder / "configs" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contents if isinstance(contents, str) else yaml.safe_dump(contents, sort_keys=False))
    return f"configs/net/{name}"
