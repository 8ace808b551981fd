"""The keys of a PaddleSeg config as a whole: which it may have, and what those of its runtime say.

`test_config` is PaddleSeg 2.8's. The sections `global`, `train` and `test` stand in the configs of its later versions
(`_base_/runtime.yml`), where 2.8 takes flags of its command line.
"""

from typing import Any

from segslim.paddleseg.reading import Section

TAKEN = ("model", "loss", "train_dataset", "val_dataset", "optimizer", "iters", "batch_size", "export")
TESTS = ("test_config", "test")
OUR_KEYS = {"global": ("device", "num_workers"), "train": ("seed",)}  # the same words here and there
ELSEWHERE = {  # what ours has another word for
    "save_dir": "hydra.run.dir",
    "do_eval": "train.eval_interval",
    "save_interval": "train.save_interval",
    "log_iters": "logger",
    "resume_model": "store",
    "keep_checkpoint_max": "store",
}


def translate(config: Section) -> dict[str, Any]:
    """What `global` and `train` change in our config; a key that goes by another word here is named in a warning.

    Raises UserError naming a key of the config that is not known or not supported.
    """
    rate = "lr_scheduler" if "lr_scheduler" in config else "learning_rate"
    config.only((*TAKEN, rate, *TESTS, *OUR_KEYS, "to_static_training"))
    if config.get("to_static_training"):
        raise config.fault("to_static_training", "is not supported: remove it")
    for name in TESTS:
        if config.get(name):
            _check_tests(config.section(name))
    translated: dict[str, Any] = {}
    for name, ours in OUR_KEYS.items():
        if config.get(name):
            section = config.section(name)
            translated |= {key: section.values[key] for key in ours if section.get(key) is not None}
            translated |= _checked(section, ours)
    return translated


def _check_tests(section: Section) -> None:
    neutral = {"scales": (1, [1])}
    for key, value in section.values.items():
        if value and value not in neutral.get(key, ()):
            raise section.fault(key, "is not supported: one image gives one prediction here, without augmentation")


def _checked(section: Section, ours: tuple[str, ...]) -> dict[str, Any]:
    neutral = {"data_format": "NCHW", "repeats": 1, "amp_level": "O1"}
    section.only((*ours, *neutral, "precision", *ELSEWHERE))
    for key, value in neutral.items():
        if section.get(key, value) != value:
            raise section.fault(key, f"= {section.values[key]} is not supported: only {value} is")
    for key in ELSEWHERE:
        if section.get(key):
            section.warn(key, f"is not taken over: give {ELSEWHERE[key]}=...")
    if section.get("precision", "fp32") not in ("fp32", "fp16"):
        raise section.fault("precision", f"= {section.values['precision']} should be fp32 or fp16")
    return {"train": {"amp": True}} if section.get("precision") == "fp16" else {}
