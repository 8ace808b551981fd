"""Network, losses, optimizer, schedule and runtime of a PaddleSeg config -> our `model`, `train` and `retrain`."""

from typing import Any

from segslim.paddleseg.components import component_node, schedule_node
from segslim.paddleseg.dataset import ignore_index, num_classes
from segslim.paddleseg.section import Section

KEYS = ("model", "loss", "distill_loss", "train_dataset", "val_dataset", "optimizer", "iters", "batch_size", "export")
TESTS = ("test_config", "test")  # of PaddleSeg 2.8, and of its later versions
TEST_KEYS = (
    *("is_slide", "crop_size", "stride", "aug_eval", "scales", "flip_horizontal", "flip_vertical", "auc_roc"),
    *("batch_size", "num_workers"),
)
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
EMA_DECAY = 0.999  # PaddleSeg's
COPIED_TO_RETRAIN = (
    *("iters", "batch_size", "learning_rate", "warmup_iters", "warmup_start_lr", "optimizer", "schedule"),
)


def translate_model(config: Section) -> dict[str, Any]:
    """`network` and `loss` of our group `model`."""
    model = config.section("model")
    classes, given = num_classes(config), model.get("num_classes")
    if given not in (None, classes):
        raise model.error("num_classes", f"is {given}, and that of the data set {classes}: make them equal")
    values = {key: value for key, value in model.values.items() if key != "num_classes"}
    defaults = {"num_classes": "${dataset.num_classes}"}
    network = component_node(model.replace(values), "MODELS", "BACKBONES", defaults=defaults)
    loss = config.section("loss")
    loss.allow(("types", "coef"))
    types, coef = list(loss.sections("types")), _weights(loss)
    if len(types) not in (1, len(coef)):
        raise loss.error("coef", f"= {coef} for {len(types)} types: give a weight for each output of the network")
    ignored = ignore_index(config)
    return {"network": network, "loss": {"types": [_loss(entry, ignored) for entry in types], "coef": coef}}


def translate_training(config: Section) -> dict[str, Any]:
    """What the config changes in `train`, `retrain` and the runtime; a key with another name here is warned of.

    Retraining is as training, as in PaddleSeg's own pruning. Raises `UserError` for an unknown key, and an optimizer or
    a schedule that is not PaddleSeg's or Paddle's.
    """
    if config.get("model"):
        translate_model(config)  # a network that is not installed says more than a key that it would have
    config.allow((*KEYS, "lr_scheduler", "learning_rate", *TESTS, *RUNTIME, "to_static_training"))
    if config.get("to_static_training"):
        raise config.error("to_static_training", "is not supported: remove it")
    runtime: dict[str, Any] = {}
    amp: dict[str, Any] = {}
    for name, keys in RUNTIME.items():
        if config.get(name):
            section = config.section(name)
            runtime |= {key: section.values[key] for key in keys if section.get(key) is not None}
            amp |= _runtime(section, keys)
    recipe = translate_recipe(config)
    train = {
        **{key: recipe[key] for key in ("iters", "batch_size", "learning_rate")},
        **_optimizer(config.section("optimizer")),
        **_schedule(config, recipe["iters"]),
        **amp,
    }
    retrain: dict[str, Any] = {key: f"${{train.{key}}}" for key in COPIED_TO_RETRAIN}
    if config.get("distill_loss"):
        retrain["distill"] = _distillation(config)
    return {**runtime, "train": train, "retrain": retrain, "evaluation": translate_evaluation(config)}


def translate_recipe(config: Section) -> dict[str, Any]:
    """`dataset.recipe`: iterations, images in a batch, and the highest learning rate."""
    if "lr_scheduler" in config:
        rate = config.section("lr_scheduler").number("learning_rate")
    else:
        rate = config.section("learning_rate").number("value")
    iters, batch_size = config.integer("iters"), config.integer("batch_size")
    return {"iters": iters, "retrain_iters": iters, "batch_size": batch_size, "learning_rate": rate}


def _weights(section: Section) -> list[float]:
    coef = section.require("coef")
    if not isinstance(coef, list) or not all(type(weight) in (int, float) for weight in coef):
        raise section.error("coef", f"should be a list of numbers, and is {coef!r}")
    return coef


def _loss(section: Section, ignored: int) -> dict[str, Any]:
    """A loss; MixedLoss holds others. The ignored label is the data set's, as in PaddleSeg."""
    if section.text("type") == "DistillCrossEntropyLoss":
        raise section.error("type", "= DistillCrossEntropyLoss needs a teacher's classes: use distill_loss")
    given = section.get("ignore_index")
    if given not in (None, ignored):
        raise section.error("ignore_index", f"is {given}, and that of the data set {ignored}: make them equal")
    values = {key: value for key, value in section.values.items() if key != "ignore_index"}
    if "losses" in section:
        values["coef"] = _weights(section)
        values["losses"] = [_loss(entry, ignored) for entry in section.sections("losses")]
    return component_node(section.replace(values), "LOSSES", defaults={"ignore_index": "${dataset.ignore_index}"})


def _distillation(config: Section) -> dict[str, Any]:
    """`retrain.distill` of `distill_loss`: the dense network teaches the pruned one. KLLoss is a mean over classes,
    too, where ours is a sum.
    """
    section = config.section("distill_loss")
    section.allow(("types", "coef"))
    types, coef = list(section.sections("types")), _weights(section)
    if not types or types[0].text("type") != "KLLoss":
        raise section.error("types", "should be one KLLoss")
    if len(coef) != 1:
        raise section.error("coef", f"= {coef} should be one weight: the main head alone is distilled here")
    section.warn("types", "teach by the dense network when the pruned one is retrained; no other teacher is read")
    weight = coef[0] / num_classes(config)
    return {"kind": "logits", "weight": weight, "temperature": types[0].number("temperature", 1.0)}


def _runtime(section: Section, keys: tuple[str, ...]) -> dict[str, Any]:
    """What of `train` the section sets: `amp`, `ema` and `early_stop`."""
    only = {"data_format": "NCHW", "repeats": 1, "amp_level": "O1"}
    section.allow((*keys, *only, "precision", "use_ema", "early_stop_intervals", *OUR_NAMES))
    for key, value in only.items():
        if section.get(key, value) != value:
            raise section.error(key, f"= {section.values[key]} is not supported: write {value}")
    for key, ours in OUR_NAMES.items():
        if section.get(key):
            section.warn(key, f"is not taken over: give {ours}=...")
    if section.get("precision", "fp32") not in ("fp32", "fp16"):
        raise section.error("precision", f"= {section.values['precision']} should be fp32 or fp16")
    translated: dict[str, Any] = {"amp": True} if section.get("precision") == "fp16" else {}
    if section.get("use_ema"):
        translated["ema"] = EMA_DECAY
    if section.get("early_stop_intervals"):
        translated["early_stop"] = section.integer("early_stop_intervals")
    return translated


def _optimizer(section: Section) -> dict[str, Any]:
    """Ours where it is SGD with or without momentum, or the node of PaddleSeg's."""
    name = {"sgd": "SGD", "adam": "Adam"}.get(section.text("type"), section.text("type"))
    if name == "SGD" and "momentum" in section:  # as PaddleSeg's builder
        name = "Momentum"
    values = {key: _number_or_same(value) for key, value in section.values.items()} | {"type": name}
    section = section.replace(values)
    node = component_node(section, "OPTIMIZERS")
    if name in ("SGD", "Momentum") and values.keys() <= {"type", "momentum", "weight_decay"}:
        momentum = section.number("momentum", 0.9 if name == "Momentum" else 0.0)
        return {"momentum": momentum, "weight_decay": section.number("weight_decay", 0.0)}
    return {"optimizer": node}


def _schedule(config: Section, iters: int) -> dict[str, Any]:
    """`power` where the rate decays polynomially to 0 over all iterations, as ours, or the node of Paddle's `schedule`;
    and the warmup.
    """
    if "lr_scheduler" not in config:  # PaddleSeg's first form
        config.section("learning_rate").allow(("value", "decay"))
        if config.section("learning_rate").get("decay") is None:
            return {"power": 0.0}
        decay = config.section("learning_rate").section("decay")
        decay.allow(("type", "power", "end_lr"))
        if decay.get("type", "poly") != "poly":
            raise decay.error("type", f"= {decay.values['type']} should be poly")
        power, end_lr = decay.number("power", 0.9), decay.number("end_lr", 0.0)
        return _ours_or_polynomial(power, end_lr)
    section = config.section("lr_scheduler")
    if "learning_rate" in config:
        config.warn("learning_rate", "is not read, as by PaddleSeg: lr_scheduler is")
    values = {key: _number_or_same(value) for key, value in section.values.items()}
    warmup: dict[str, Any] = {}
    if "warmup_iters" in values:
        warmup = {"warmup_iters": section.integer("warmup_iters"), "warmup_start_lr": section.number("warmup_start_lr")}
    kind, others = section.text("type"), ("type", "learning_rate", "warmup_iters", "warmup_start_lr")
    options = {key: value for key, value in values.items() if key not in others}
    node = schedule_node(section, options)
    steps = options.get("decay_steps", iters - warmup.get("warmup_iters", 0))
    if kind == "PolynomialDecay" and not options.get("cycle") and steps == iters - warmup.get("warmup_iters", 0):
        # PaddleSeg's defaults
        return warmup | _ours_or_polynomial(section.number("power", 1.0), section.number("end_lr", 0.0001))
    return warmup | {"schedule": node}


def _ours_or_polynomial(power: float, end_lr: float) -> dict[str, Any]:
    if end_lr == 0:
        return {"power": power}
    return {"schedule": {"_target_": "paddle.optimizer.lr.PolynomialDecay", "end_lr": end_lr, "power": power}}


def _number_or_same(value: Any) -> Any:
    """YAML 1.1 reads 1e-5, which has no point, as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def translate_evaluation(config: Section) -> dict[str, Any]:
    """Our section `evaluation` of `test_config`."""
    translated: dict[str, Any] = {}
    for section in (config.section(name) for name in TESTS if config.get(name)):
        section.allow(TEST_KEYS)
        if section.get("is_slide"):
            section.size("crop_size")  # it is dataset.size, and follows it
            translated |= {"crop_size": "${dataset.size}", "stride": section.size("stride")}
        if section.get("aug_eval"):
            scales = section.get("scales", 1.0)
            if not all(type(scale) in (int, float) for scale in (scales if isinstance(scales, list) else [scales])):
                raise section.error("scales", f"= {scales!r} should be a number, or a list of numbers")
            flips = [side for side in ("horizontal", "vertical") if section.get(f"flip_{side}")]
            translated |= {"scales": scales if isinstance(scales, list) else [scales], "flips": flips}
        if section.get("auc_roc"):
            translated["auc_roc"] = True
    return translated
