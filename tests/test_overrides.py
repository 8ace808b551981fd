"""Whatever is typed gives a plan or an error that names its key in one line; never a traceback."""

import string

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segslim.config import validate
from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.reporting.report import WANTED
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import ROOT

CONF = ROOT / "conf"
GROUPS = {"compress": [file.stem for file in sorted((CONF / "compress").glob("*.yaml"))]}
GROUPS["model"] = ["fast_scnn", "bisenetv2", "unet"]
GROUPS["engine"] = [file.stem for file in sorted((CONF / "engine").glob("*.yaml"))]


@pytest.fixture(scope="module", autouse=True)
def hydra():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def leaves(node, key=""):
    if isinstance(node, dict) and node:
        return [leaf for name, child in node.items() for leaf in leaves(child, f"{key}.{name}" if key else name)]
    return [key]


def keys_of(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", list(overrides)), resolve=False)
    GlobalHydra.instance().clear()
    return [key for key in leaves(composed) if not key.endswith("_target_")]


KEYS = keys_of("compress=prune")
numbers = st.one_of(st.integers(-3, 600), st.sampled_from([0, 1, -1, 255, 256, 2**31, 10**30]))
floats = st.floats(-2, 2).map(lambda value: f"{value:.3g}") | st.sampled_from(["nan", "inf", "-inf", "1e-300", "1e300"])
words = st.text(string.ascii_letters + string.digits + "_-/.", min_size=1, max_size=12).filter(lambda w: w[0].isalpha())
scalars = st.one_of(
    numbers.map(str), floats, words, st.sampled_from(["null", "true", "false", "''", "[]", "{}", "???"])
)
lists = st.lists(scalars, max_size=3).map(lambda items: f"[{','.join(items)}]")
values = st.one_of(scalars, scalars, lists, scalars.map(lambda value: "{a: " + value + "}"))
typed = st.tuples(st.sampled_from(KEYS), values)
chosen = st.sampled_from(sorted(GROUPS)).flatmap(
    lambda group: st.tuples(st.just(group), st.sampled_from(GROUPS[group]))
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(chosen, max_size=2), overrides=st.lists(typed, min_size=1, max_size=2))
def test_any_override_gives_a_plan_or_names_its_key(groups, overrides):
    given_groups = dict(groups)
    keys = [key for key, _ in overrides]
    assume(len(set(keys)) == len(keys) and not any(key.startswith("store") for key in keys))
    command = [f"{group}={option}" for group, option in given_groups.items()]
    command += [f"{key}={value}" for key, value in overrides]
    try:
        composed = compose("config", command)
    except (HydraException, OmegaConfBaseException):
        return  # a key that this strategy does not have, or no value: Hydra's answer
    try:
        made = plan(resolve(validate(composed)), STAGES, WANTED)
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert any(_named(key, message) for key in keys), f"{command}: {message}"
        return
    assert made.steps


def _named(key, message):
    """The key itself, a part of it, or one that follows from it: train.iters is dataset.recipe.iters."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in message for end in range(len(parts), 1, -1)) or parts[-1] in message


LATE = {
    "mixed precision of the retraining": (["compress=prune", "retrain.amp=true"], "retrain.amp=true"),
    "a precision that no engine has": (
        ["engine=onnxruntime", "engine.precision=bfloat16"],
        "engine.precision=bfloat16",
    ),
    "a precision beside int8": (
        ["compress=ptq", "engine=onnxruntime", "compress.precisions=[float16]"],
        "compress.precisions=['float16']: no engine has it",
    ),
    "a criterion": (["compress=prune", "compress.criterion=taste"], "compress.criterion=taste"),
    "another size": (["export.size=[64,64]"], "export.size=[64, 64]"),
    "too few names": (["dataset.classes=[one]"], "dataset.classes has 1 entries"),
}


@pytest.mark.parametrize(("overrides", "words"), LATE.values(), ids=LATE)
def test_what_would_fail_after_the_training_is_known_before_any_work(overrides, words):
    with pytest.raises(UserError) as error:
        plan(resolve(validate(compose("config", overrides))), STAGES, WANTED)
    assert words in str(error.value)
