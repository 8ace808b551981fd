"""Network, losses, optimizer, schedule and runtime of a PaddleSeg config -> our `model`, `train` and `retrain`."""

from typing import Any

from segslim.paddleseg.components import component_node
from segslim.paddleseg.dataset import ignore_index, num_classes
from segslim.paddleseg.section import Section

KEYS = ("model", "loss", "train_dataset", "val_dataset", "optimizer", "iters", "batch_size", "export")
TESTS = ("test_config", "test")  # of PaddleSeg 2.8, and of its later versions
# Sections of later versions (`_base_/runtime.yml`), where 2.8 takes flags, with the keys that have our names.
RUNTIME = {"global": ("device", "num_workers"), "train": ("seed",)}
OUR_NAMES = {
    "save_dir": "hydra.run.dir",
    "do_eval": "train.eval_interval",
    "save_interval": "train.save_interval",
    "log_iters": "logger",
    "resume_model": "store",
    "keep_checkpoint_max": "store",
}
COPIED_TO_RETRAIN = ("iters", "batch_size", "learning_rate", "warmup_iters")
# These losses need more than a head's logits and the labels.
UNSUPPORTED_LOSSES = ("KLLoss", "DistillCrossEntropyLoss", "MaskFormerLoss")


def translate_model(config: Section) -> dict[str, Any]:
    """`network` and `loss` of our group `model`.

    Pretrained weights that are a download address become null, with a warning: weights come from train.checkpoint.
    """
    model = config.section("model")
    classes, given = num_classes(config), model.get("num_classes")
    if given not in (None, classes):
        raise model.error("num_classes", f"is {given}, and that of the data set {classes}: make them equal")
    values = {key: value for key, value in model.values.items() if key != "num_classes"}
    defaults = {"num_classes": "${dataset.num_classes}"}
    network = component_node(model.replace(values), "MODELS", "BACKBONES", defaults=defaults)
    _drop_addresses(network, model)
    loss = config.section("loss")
    loss.allow(("types", "coef"))
    types, coef = list(loss.sections("types")), _weights(loss)
    if len(types) not in (1, len(coef)):
        raise loss.error("coef", f"= {coef} for {len(types)} types: give a weight for each output of the network")
    ignored = ignore_index(config)
    return {"network": network, "loss": {"types": [_loss(entry, ignored) for entry in types], "coef": coef}}


def translate_training(config: Section) -> dict[str, Any]:
    """What the config changes in `train`, `retrain` and the runtime; a key with another name here is warned of.

    Retraining is as training, as in PaddleSeg's own pruning. Ours is SGD with momentum whose rate rises from 0 and
    decays polynomially to 0. Raises `UserError` for an unknown key, another optimizer or another schedule.
    """
    rate = "lr_scheduler" if "lr_scheduler" in config else "learning_rate"
    config.allow((*KEYS, rate, *TESTS, *RUNTIME, "to_static_training"))
    if config.get("to_static_training"):
        raise config.error("to_static_training", "is not supported: remove it")
    for section in (config.section(name) for name in TESTS if config.get(name)):
        for key, value in section.values.items():
            if value and not (key == "scales" and value in (1, [1])):
                raise section.error(key, "is not supported: one image gives one prediction here, without augmentation")
    runtime: dict[str, Any] = {}
    amp: dict[str, Any] = {}
    for name, keys in RUNTIME.items():
        if config.get(name):
            section = config.section(name)
            runtime |= {key: section.values[key] for key in keys if section.get(key) is not None}
            amp |= _runtime(section, keys)
    recipe = translate_recipe(config)
    power, warmup = _schedule(config, recipe["iters"], recipe["learning_rate"])
    train = {
        **{key: recipe[key] for key in ("iters", "batch_size", "learning_rate")},
        **_optimizer(config.section("optimizer")),
        "power": power,
        "warmup_iters": warmup,
        **amp,
    }
    return {**runtime, "train": train, "retrain": {key: f"${{train.{key}}}" for key in COPIED_TO_RETRAIN}}


def translate_recipe(config: Section) -> dict[str, Any]:
    """`dataset.recipe`: iterations, images in a batch, and the highest learning rate."""
    if "lr_scheduler" in config:
        rate = config.section("lr_scheduler").number("learning_rate")
    else:
        rate = config.section("learning_rate").number("value")
    iters, batch_size = config.integer("iters"), config.integer("batch_size")
    return {"iters": iters, "retrain_iters": iters, "batch_size": batch_size, "learning_rate": rate}


def _drop_addresses(network: dict[str, Any], section: Section) -> None:
    for key, value in network.items():
        if isinstance(value, dict):
            _drop_addresses(value, Section(section.file, section.path(key), value))
        elif key == "pretrained" and isinstance(value, str) and "://" in value:
            network[key] = None
            section.warn(key, f"= {value} is not downloaded: give weights by train.checkpoint=...")


def _weights(section: Section) -> list[float]:
    coef = section.require("coef")
    if not isinstance(coef, list) or not all(type(weight) in (int, float) for weight in coef):
        raise section.error("coef", f"should be a list of numbers, and is {coef!r}")
    return coef


def _loss(section: Section, ignored: int) -> dict[str, Any]:
    """A loss; MixedLoss holds others. The ignored label is the data set's, as in PaddleSeg."""
    if section.text("type") in UNSUPPORTED_LOSSES or section.get("edge_label"):
        raise section.error("type", f"= {section.values['type']} needs more than logits and labels: not supported")
    given = section.get("ignore_index")
    if given not in (None, ignored):
        raise section.error("ignore_index", f"is {given}, and that of the data set {ignored}: make them equal")
    values = {key: value for key, value in section.values.items() if key != "ignore_index"}
    if "losses" in section:
        values["coef"] = _weights(section)
        values["losses"] = [_loss(entry, ignored) for entry in section.sections("losses")]
    return component_node(section.replace(values), "LOSSES", defaults={"ignore_index": "${dataset.ignore_index}"})


def _runtime(section: Section, keys: tuple[str, ...]) -> dict[str, Any]:
    """`amp`, where the section sets the precision to fp16."""
    only = {"data_format": "NCHW", "repeats": 1, "amp_level": "O1"}
    section.allow((*keys, *only, "precision", *OUR_NAMES))
    for key, value in only.items():
        if section.get(key, value) != value:
            raise section.error(key, f"= {section.values[key]} is not supported: only {value} is")
    for key, ours in OUR_NAMES.items():
        if section.get(key):
            section.warn(key, f"is not taken over: give {ours}=...")
    if section.get("precision", "fp32") not in ("fp32", "fp16"):
        raise section.error("precision", f"= {section.values['precision']} should be fp32 or fp16")
    return {"amp": True} if section.get("precision") == "fp16" else {}


def _optimizer(section: Section) -> dict[str, float]:
    kind = section.text("type").lower()
    if kind not in ("sgd", "momentum"):
        raise section.error("type", f"= {section.values['type']} is not supported: training here is SGD with momentum")
    section.allow(("type", "momentum", "weight_decay", "use_nesterov"))
    if section.get("use_nesterov"):
        raise section.error("use_nesterov", "is not supported: training here is SGD with plain momentum")
    momentum = section.number("momentum", 0.9 if kind == "momentum" else 0.0)
    return {"momentum": momentum, "weight_decay": section.number("weight_decay", 0.0)}


def _schedule(config: Section, iters: int, rate: float) -> tuple[float, int]:
    """The power of the decay and the iterations of warmup."""
    if "lr_scheduler" in config:
        schedule = config.section("lr_scheduler")
        kind, end_lr, power = "PolynomialDecay", 0.0001, 1.0  # PaddleSeg's defaults, but for the type
        keys: tuple[str, ...] = ("learning_rate", "decay_steps", "cycle", "warmup_iters", "warmup_start_lr")
        given = schedule.text("type")
    else:  # PaddleSeg's first form
        config.section("learning_rate").allow(("value", "decay"))
        if config.section("learning_rate").get("decay") is None:
            return 0.0, 0
        schedule = config.section("learning_rate").section("decay")
        kind, end_lr, power, keys = "poly", 0.0, 0.9, ()
        given = schedule.get("type", kind)
    if given != kind:
        raise schedule.error("type", f"= {given} is not supported: the rate decays polynomially here")
    schedule.allow(("type", "power", "end_lr", *keys))
    if schedule.number("end_lr", end_lr) != 0:
        raise schedule.error("end_lr", f"= {schedule.get('end_lr', end_lr)} should be 0, where the rate ends here")
    warmup = schedule.integer("warmup_iters", 0)
    if schedule.get("cycle") or schedule.get("decay_steps", iters - warmup) != iters - warmup:
        key = "cycle" if schedule.get("cycle") else "decay_steps"
        raise schedule.error(key, "is not supported: the rate decays once, over all iterations")
    if schedule.number("warmup_start_lr", 0.0) > 0.01 * rate:  # a warmup from next to 0 is ours
        raise schedule.error("warmup_start_lr", "is not supported: the rate rises from 0 here")
    return schedule.number("power", power), warmup
