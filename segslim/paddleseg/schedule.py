"""`optimizer`, `lr_scheduler`, `iters` and `batch_size` of a PaddleSeg config -> our groups `train` and `retrain`."""

from typing import Any

from segslim.paddleseg.reading import Section

UNIMPORTANT = 0.01  # of the learning rate: what a warmup may start from that ours, from 0, does not
SIMILAR = ("iters", "batch_size", "learning_rate", "warmup_iters")


def translate(config: Section) -> dict[str, Any]:
    """What the config changes in `train` and `retrain`; retraining is as training, as in PaddleSeg's own pruning.

    Ours is SGD with momentum whose rate rises from 0 and decays polynomially to 0. Raises UserError naming what is
    another optimizer or schedule.
    """
    iters, batch_size, rate = iters_and_rate(config)
    power, warmup = _schedule(config, iters, rate)
    momentum, weight_decay = _optimizer(config.section("optimizer"))
    train = {
        "iters": iters,
        "batch_size": batch_size,
        "learning_rate": rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "power": power,
        "warmup_iters": warmup,
    }
    return {"train": train, "retrain": {key: f"${{train.{key}}}" for key in SIMILAR}}


def iters_and_rate(config: Section) -> tuple[int, int, float]:
    """Iterations, images in a batch, and the highest learning rate."""
    if "lr_scheduler" in config:
        rate = config.section("lr_scheduler").number("learning_rate")
    else:
        rate = config.section("learning_rate").number("value")
    return config.whole("iters"), config.whole("batch_size"), rate


def _optimizer(section: Section) -> tuple[float, float]:
    """Momentum and weight decay."""
    kind = str(section.word("type")).lower()
    if kind not in ("sgd", "momentum"):
        raise section.fault("type", f"= {section.values['type']} is not supported: training here is SGD with momentum")
    section.only(("type", "momentum", "weight_decay", "use_nesterov"))
    if section.get("use_nesterov"):
        raise section.fault("use_nesterov", "is not supported: training here is SGD with plain momentum")
    return section.number("momentum", 0.9 if kind == "momentum" else 0.0), section.number("weight_decay", 0.0)


def _schedule(config: Section, iters: int, rate: float) -> tuple[float, int]:
    """The power of the decay and the iterations of warmup."""
    if "lr_scheduler" not in config:
        return _older(config.section("learning_rate")), 0
    schedule = config.section("lr_scheduler")
    if schedule.word("type") != "PolynomialDecay":
        raise schedule.fault("type", f"= {schedule.values['type']} is not supported: the rate decays polynomially here")
    schedule.only(
        ("type", "learning_rate", "end_lr", "power", "decay_steps", "cycle", "warmup_iters", "warmup_start_lr")
    )
    warmup = schedule.whole("warmup_iters", 0)
    _ends_at_nought(schedule)
    if schedule.get("cycle") or schedule.get("decay_steps", iters - warmup) != iters - warmup:
        key = "cycle" if schedule.get("cycle") else "decay_steps"
        raise schedule.fault(key, "is not supported: the rate decays once, over all iterations")
    if schedule.number("warmup_start_lr", 0.0) > UNIMPORTANT * rate:
        raise schedule.fault("warmup_start_lr", "is not supported: the rate rises from 0 here")
    return schedule.number("power", 1.0), warmup


def _older(schedule: Section) -> float:
    """The power of PaddleSeg's first form of a schedule, which stands under `learning_rate`."""
    schedule.only(("value", "decay"))
    if schedule.get("decay") is None:
        return 0.0
    decay = schedule.section("decay")
    decay.only(("type", "power", "end_lr"))
    if decay.get("type", "poly") != "poly":
        raise decay.fault("type", f"= {decay.values['type']} is not supported: the rate decays polynomially here")
    _ends_at_nought(decay, default=0.0)
    return decay.number("power", 0.9)


def _ends_at_nought(schedule: Section, default: float = 0.0001) -> None:
    if schedule.number("end_lr", default) != 0:
        raise schedule.fault("end_lr", f"= {schedule.get('end_lr', default)} should be 0, where the rate ends here")
