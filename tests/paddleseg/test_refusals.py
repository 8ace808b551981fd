"""What cannot be taken over is refused in one line that names the file and the key, never dropped."""

import copy
import os

import pytest
import yaml
from hydra.plugins.config_source import ConfigLoadError

from segslim.paddleseg import PaddleSegSource
from tests.paddleseg.fragments import (
    FLIP,
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

FINE = [resize(64, 64), NORMALIZE]
TRANSFORMS, LOSS = "train_dataset.transforms", "loss.types[0]"


def load(file):
    for group in ("", "dataset/", "model/"):  # as Hydra asks for them
        PaddleSegSource("segslim", "paddleseg://").load_config(f"{group}paddleseg/{file}")


def without(key, **changed):
    return {name: value for name, value in quick_start(**changed).items() if name != key}


def transforms(train=FINE, val=FINE):
    return {**quick_start(), **data("OpticDiscSeg", "data/optic_disc_seg", train, val)}


def mine(**both):
    return {**quick_start(), **lists("data/mine", FINE, FINE, **both)}


def heads(*types):
    return quick_start(loss=losses(*types, coef=[1] * 5))


def schedule(**changed):
    return quick_start(lr_scheduler={**POLY, **changed})


def optimizer(**options):
    return quick_start(optimizer=options)


def inherited(name, **changed):
    return on(name, model=network("UNet"), **changed)


# config, the key that is named, a word of what is wrong or of the remedy
REFUSED = [
    ({**without("iters"), "itres": 5}, "itres", "did you mean iters"),
    (quick_start(slim={"a": 1}), "slim", "not known"),
    (without("lr_scheduler"), "learning_rate", "no value"),
    (without("loss"), "loss", "no value"),
    (without("model"), "model", "no value"),
    (without("val_dataset"), "val_dataset", "no value"),
    (without("iters"), "iters", "no value"),
    (quick_start(iters=0.5), "iters", "integer"),
    (quick_start(model="BiSeNetV2"), "model", "mapping"),
    (quick_start(model={"pretrained": None}), "model.type", "no value"),
    (quick_start(model=network("BiSeNetV3")), "model.type=BiSeNetV3", "did you mean BiSeNetV2"),
    (quick_start(model=network("Normalize")), "model.type=Normalize", "none of that name"),
    (quick_start(model=network("BiSeNetV2", lambda_=1)), "model.lambda_", "did you mean lambd"),
    (quick_start(model=network("BiSeNetV2", num_classes=19)), "model.num_classes", "19"),
    (quick_start(model=network("PSPNet")), "model.backbone", "PSPNet needs it"),
    (quick_start(model=network("FCN", "HRNet_W19")), "model.backbone.type=HRNet_W19", "did you mean HRNet_W18"),
    (
        schedule(type="StepDecay", gama=1),
        "lr_scheduler.end_lr, lr_scheduler.power, lr_scheduler.gama",
        "not known",
    ),
    (schedule(type="PolyDecay"), "lr_scheduler.type=PolyDecay", "no schedule of that name"),
    (schedule(warmup_iters=10), "lr_scheduler.warmup_start_lr", "no value"),
    (quick_start(optimizer={"type": "Lion"}), "optimizer.type=Lion", "none of that name"),
    (optimizer(type="AdamW", beta3=1), "optimizer.beta3", "did you mean beta"),
    (schedule(power="much"), "lr_scheduler.power", "'much'"),
    (heads("CrossEntropy"), f"{LOSS}.type=CrossEntropy", "did you mean"),
    (heads({"type": "CrossEntropyLoss", "weights": [1, 2]}), f"{LOSS}.weights", "did you mean weight"),
    (heads({"type": "CrossEntropyLoss", "ignore_index": 0}), f"{LOSS}.ignore_index", "255"),
    (heads("DistillCrossEntropyLoss"), f"{LOSS}.type", "use distill_loss"),
    (quick_start(loss=losses("CrossEntropyLoss", "DiceLoss", coef=[1])), "loss.coef", "[1] for 2 types"),
    (quick_start(loss=losses("CrossEntropyLoss", coef=["much"])), "loss.coef", "['much']"),
    (transforms(train=[{"type": "RandomFlip"}, *FINE]), f"{TRANSFORMS}[0].type=RandomFlip", "did you mean"),
    (transforms(train=[{"type": "Resize", "target_size": 512}]), f"{TRANSFORMS}[0].target_size", "512"),
    (transforms(train=[STEP_SCALING, FLIP, NORMALIZE], val=[NORMALIZE]), TRANSFORMS, "RandomPaddingCrop or Resize"),
    (transforms(val=[resize(64, 64, keep=True)]), "val_dataset.transforms[0].keep", "not supported"),
    (transforms(val=[padding(64, 64), {"type": "Normalise"}]), "val_dataset.transforms[1].type=Normalise", "Normalize"),
    (transforms(val=NORMALIZE), "val_dataset.transforms", "list"),
    (
        {**quick_start(), **data("PSSLDataset", "data", FINE, FINE)},
        "train_dataset.type",
        "`pretrained` of the backbone",
    ),
    (inherited("cityscapes", val_dataset={"type": "ADE20K"}), "val_dataset.type", "Cityscapes"),
    (inherited("pascal_voc12", train_dataset={"mode": "trainval"}), "train_dataset.mode", "train or trainaug"),
    (mine(num_classes=None), "train_dataset.num_classes", "no value"),
    ({**mine(), **data("Dataset", "data/mine", FINE, FINE)}, "train_dataset.num_classes", "no value"),
    (mine(train_path=None), "train_dataset.train_path", "no value"),
    (quick_start(test_config={"aug_evall": True}), "test_config.aug_evall", "did you mean aug_eval"),
    (quick_start(test={"is_slide": True, "stride": [1, 1]}), "test.crop_size", "no value"),
    (quick_start(test={"is_slide": True, "stride": [1, 1], "crop_size": 64}), "test.crop_size", "[width, height]"),
    (quick_start(test={"aug_eval": True, "scales": ["x"]}), "test.scales", "numbers"),
    (quick_start(test={"use_multilabel": True}), "test.use_multilabel", "one class"),
    (quick_start(distill_loss={"types": [], "coef": [1]}), "distill_loss.types", "KLLoss"),
    (quick_start(distill_loss={"types": [{"type": "KLLoss"}], "coef": []}), "distill_loss.coef", "one weight"),
    (quick_start(to_static_training=True), "to_static_training", "not supported"),
    (quick_start(**{"global": {"data_format": "NHWC"}}), "global.data_format", "NCHW"),
    (quick_start(train={"use_emaa": True}), "train.use_emaa", "did you mean use_ema"),
]


@pytest.mark.parametrize(("config", "key", "words"), REFUSED, ids=[key for _, key, _ in REFUSED])
def test_it_is_refused_in_one_line_with_file_and_key(tmp_path, monkeypatch, config, key, words):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, config)
    with pytest.raises(ConfigLoadError) as refusal:
        load(file)
    assert str(refusal.value).startswith(f"{file}: {key}") and words in str(refusal.value)
    assert "\n" not in str(refusal.value)


FULL = {
    **quick_start(
        model=network("FCN", "HRNet_W18", backbone_indices=[-1]),
        loss=losses(mixed("CrossEntropyLoss", "DiceLoss", coef=[1, 1])),
        export={"transforms": [padding(64, 64), NORMALIZE]},
        test_config={"aug_eval": False},
        train={"seed": 1, "precision": "fp32"},
    ),
    **lists("data/mine", [crop(64, 64), NORMALIZE], [NORMALIZE], ignore_index=255, separator=" "),
}
JUNK = (None, "junk", 3, -1.5, True, [1], ["junk"], {"type": "UNet"}, {"type": [1]}, {3: 4})


def places(value, path=()):
    """The path to every value in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, nested in inner:
        yield (*path, key)
        yield from places(nested, (*path, key))


def with_everywhere(value):
    """(path, config) with the value in each place of FULL in turn."""
    for path in places(FULL):
        config = copy.deepcopy(FULL)
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        yield path, config


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_junk_in_any_place_is_taken_over_or_refused_in_one_line(tmp_path, monkeypatch, junk):
    monkeypatch.chdir(tmp_path)
    for path, config in with_everywhere(junk):
        (tmp_path / "mine.yml").write_text(yaml.safe_dump(config))
        try:
            load("mine.yml")
        except ConfigLoadError as refusal:
            assert str(refusal).startswith("mine.yml: ") and "\n" not in str(refusal), path
        except Exception as error:
            raise AssertionError(f"{path} = {junk!r}") from error


RUNS = {
    "what Hydra would build": [{"a": {"_target_": "os.mkdir", "_args_": ["ran"]}}],
    "what OmegaConf would fill in": "${oc.env:HOME}",
    "what no path can be": "a\0b",
}


@pytest.mark.parametrize("value", RUNS.values(), ids=RUNS)
def test_a_value_that_something_would_run_is_refused_in_any_place(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    for _, config in with_everywhere(value):
        (tmp_path / "mine.yml").write_text(yaml.safe_dump(config))
        with pytest.raises(ConfigLoadError, match=r"^mine\.yml: "):
            load("mine.yml")


@pytest.mark.parametrize("text", ["nn.LayerNorm if open('ran', 'w') else 0", "[1 for nn.x in [1]]", "UAFM;1"])
def test_a_text_that_paddleseg_would_evaluate_is_a_name(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, quick_start(model=network("PPLiteSeg", "STDC1", arm_type=text)))
    with pytest.raises(ConfigLoadError, match=r"model\.arm_type should be a name"):
        load(file)


def _levels(first, level):
    return f"a0: &a0 {first}\n" + "".join(f"a{n}: &a{n} {level}\n".replace("LAST", f"*a{n - 1}") for n in range(1, 41))


BOMBS = {
    "lists": _levels("[1]", "[LAST, LAST]"),
    "mappings": _levels("{b: 1}", "{b: LAST, c: LAST}"),
    "merged": _levels("{b: 1}", "{<<: [LAST, LAST], c: LAST, d: LAST}"),
    "a chain": _levels("[1]", "[LAST]") + "b: " + "[" * 40 + "*a40" + "]" * 40,
    "itself": "a: &a [*a]",
    "nested": "[" * 100_000,
    "long": "a: [" + "1," * 400_000 + "]",
    "large": "#" * (2 << 20),
    "a number": "a: 1" + ":59" * 100_000,
    "a date": "a: 2001-99-99",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_would_take_all_memory_or_time_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yml").write_text(BOMBS[name])
    with pytest.raises(ConfigLoadError, match=r"^mine\.yml: is no valid YAML: ") as refusal:
        load("mine.yml")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_what_is_no_file_is_one_line(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "mine.yml")
    with pytest.raises(ConfigLoadError, match=r"mine\.yml: cannot be read \(it is no regular file\)"):
        load("mine.yml")


BASES = {
    "number": 3,
    "numbers": [3],
    "mapping": {"a": 1},
    "null byte": "a\0.yml",
    "long": "a" * 5000,
    "twice": ["1.yml"] * 2,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_a_base_that_is_no_file_or_one_of_too_many_is_one_line(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    for level in range(40):
        (tmp_path / f"{level}.yml").write_text(yaml.safe_dump({"_base_": [f"{level + 1}.yml"] * 2}))
    (tmp_path / "40.yml").write_text("a: 1")
    (tmp_path / "mine.yml").write_text(yaml.safe_dump({"_base_": base}))
    with pytest.raises(ConfigLoadError, match=r"_base_.*(should be the path|more than 50 files)") as refusal:
        load("mine.yml")
    assert "\n" not in str(refusal.value)
