"""Whatever is typed gives a plan or an error that names its key in one line; never a traceback."""

import re
import string

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segslim.command_line import PADDLESEG_FLAGS, in_one_line, quoted
from segslim.config import validate
from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.reporting.report import WANTED
from segslim.stages import stages_for
from segslim.stages.strategy import resolve
from tests.command import ROOT

CONF = ROOT / "conf"
GROUPS = {"compress": [file.stem for file in sorted((CONF / "compress").glob("*.yaml"))]}
GROUPS["model"] = ["fast_scnn", "bisenetv2", "unet"]
GROUPS["engine"] = [file.stem for file in sorted((CONF / "engine").glob("*.yaml"))]


def leaves(node, key=""):
    if isinstance(node, dict) and node:
        return [leaf for name, child in node.items() for leaf in leaves(child, f"{key}.{name}" if key else name)]
    return [key]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def planned(*overrides):
    config = validate(composed(*overrides))
    return plan(resolve(config), stages_for(config), WANTED)


KEYS = [
    key
    for key in leaves(OmegaConf.to_container(composed("compress=prune"), resolve=False))
    if not key.endswith("_target_")
]
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
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(chosen, max_size=2), overrides=st.lists(typed, min_size=1, max_size=2))
def test_any_override_gives_a_plan_or_names_its_key(groups, overrides):
    given_groups = dict(groups)
    keys = [key for key, _ in overrides]
    assume(len(set(keys)) == len(keys) and not any(key.startswith("store") for key in keys))
    command = [f"{group}={option}" for group, option in given_groups.items()]
    command += [f"{key}={value}" for key, value in overrides]
    try:
        made = planned(*command)
    except (HydraException, OmegaConfBaseException):
        return  # a key that this strategy does not have, or no value: Hydra's answer
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        # two groups may exclude each other: compress=fp16 engine=onnxruntime
        named = any(_named(key, message) for key in keys) or any(
            re.search(rf"\b{group}[.:=]", message) for group in given_groups
        )
        assert named, f"{command}: {message}"
        return
    assert made.steps


def _named(key, message):
    """The key itself, a part of it, or one that follows from it: train.iters is dataset.recipe.iters."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in message for end in range(len(parts), 1, -1)) or parts[-1] in message


WRONG = {
    "ratio of zero": (["compress=prune", "compress.ratio=0"], "compress.ratio=0: should be greater than 0"),
    "a word for a number": (["train.iters=many"], "train.iters=many: should be a valid integer"),
    "a number for a size": (["dataset.size=64"], "dataset.size=64: should be a list, as [512,512]"),
    "half a size": (["dataset.size=[64]"], "dataset.size=[64]: should have more entries"),
    "a size that no memory holds": (
        ["dataset.size=[64,100000]"],
        "dataset.size.1=100000: should be less than or equal",
    ),
    "a list that is none": (
        ["dataset=file_list", "dataset.root=.", "dataset.num_classes=2", "dataset.source.val_list=null"],
        "dataset.source.val_list=None: should",
    ),
    "a seed beyond 31 bits": (["seed=99999999999999999999"], "seed=99999999999999999999: should be less"),
    "a rate without end": (["train.learning_rate=nan"], "train.learning_rate=nan: should be a finite number"),
    "no name for the store": (["store=''"], "store=: String should have at least 1 character"),
    "the home of nobody": (["store='~no-such-user/s'"], "~no-such-user/s: there is no user of that name"),
    "a folder that is no checkpoint": (["train.checkpoint=/"], "train.checkpoint=/: holds no weights.safetensors"),
    "no separator": (
        ["dataset=file_list", "dataset.root=.", "dataset.num_classes=2", "dataset.source.separator=''"],
        "dataset.source.separator='': give tab",
    ),
    "images in words": (
        ["dataset.source.train_images=many"],
        "dataset.source.train_images=many: should be a valid int",
    ),
    "an engine": (["engine.candidates=[tensorflow]"], "engine.candidates=tensorflow: should be one of "),
    "a stage": (["compress.stages=[data,train,shrink]"], "there is no stage 'shrink'; the stages are data, train, "),
    "int8 by Paddle": (["compress=ptq", "engine=paddle"], "engine: none of paddle computes in int8"),
    "processes": (["train.batch_size=4", "train.processes=3"], "train.processes=3: should divide train.batch_size=4"),
    "mixed precision of the retraining": (["compress=prune", "retrain.amp=true"], "retrain.amp=true"),
    "a precision that no engine has": (
        ["engine=onnxruntime", "engine.precision=bfloat16"],
        "engine.precision=bfloat16",
    ),
    "a precision beside int8": (
        ["compress=ptq", "engine=onnxruntime", "compress.precisions=[float16]"],
        "compress.precisions=['float16']: no engine has it",
    ),
    "a criterion": (["compress=prune", "compress.criterion=taste"], "compress.criterion=taste: should be one of l1_no"),
    "a criterion of one's own": (
        ["compress=prune", "compress.criterion=nowhere:missing"],
        "compress.criterion=nowhere:missing: cannot be imported",
    ),
    "a rule": (["compress=prune", "+compress.rules={f:nowhere:f}"], "compress.rules.f=nowhere:f: cannot be"),
    "an engine of one's own": (["engine.candidates=[nowhere:opened]"], "engine.candidates=nowhere:opened: cannot be"),
    "a stage of one's own": (["compress.stages=[nowhere:STAGE]"], "compress.stages=nowhere:STAGE: cannot be imported"),
    "another size": (["export.size=[64,64]"], "export.size=[64, 64]: should be dynamic or dataset.size=[160,160]"),
    "too few names": (["dataset.classes=[one]"], "dataset.classes has 1 entries"),
}


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_what_would_fail_after_the_training_is_known_before_any_work(overrides, words):
    with pytest.raises(UserError) as error:
        planned(*overrides)
    assert words in str(error.value)


PATHS = ["/x/epoch=9", "/x/数据", "my data (1)", "it's", "C:\\data\\", "~/d", "a & b; c", "#1", "[draft", "a, b"]


@settings(max_examples=200, deadline=None)
@given(value=st.sampled_from(PATHS) | st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" ")))
def test_a_value_reaches_the_config_as_it_was_typed_or_is_named(value):
    try:
        (argument,) = quoted([f"dataset.root={value}"])
    except UserError as error:
        assert f"dataset.root={value}" in str(error) and "quotes" in str(error)
        return
    parsed = OverridesParser.create().parse_override(argument)
    if argument != f"dataset.root={value}":
        assert parsed.value() == value


@pytest.mark.parametrize(
    "paths",
    [
        ["C:\\new\\photos"],
        ["\\\\server\\share"],
        ["D:\\photos\\", "E:\\x"],
        ["list.txt", "\\\\server\\a.txt", "C:\\My Photos\\"],
    ],
)
def test_paths_of_windows_arrive_as_they_are_typed(paths):
    for path in paths:
        assert composed(*quoted([f"dataset.root={path}"])).dataset.root == path
    assert composed(*quoted([f"dataset.classes=[{', '.join(paths)}]"])).dataset.classes == paths
    assert quoted([r"+nested=[[C:\a,b],[c]]"]) == [r"+nested=[[C:\a,b],[c]]"]


def test_entries_of_a_list_need_no_quotes(tmp_path):
    assert quoted(["dataset.classes=[背景, 视盘 (1),car]"]) == ["dataset.classes=['背景','视盘 (1)',car]"]
    assert quoted(["dataset.size=[96,64]"]) == ["dataset.size=[96,64]"]


def test_a_flag_of_paddleseg_is_answered_by_a_key_that_there_is():
    keys = ["paddleseg", "store", *leaves(OmegaConf.to_container(composed("compress=prune"))), "logger"]
    for flag in PADDLESEG_FLAGS:
        with pytest.raises(UserError, match=f"^--{flag}: ") as told:
            quoted([f"--{flag}", "1"])
        assert re.search(r"type ([\w.]+)=", str(told.value))[1] in keys
    with pytest.raises(UserError, match=r"^--use_multilabel: .*one class"):
        quoted(["--use_multilabel"])


@pytest.mark.parametrize("group", ["model", "dataset", "paddleseg", "experiment"])
def test_a_group_is_left_out_by_a_tilde(group):
    with pytest.raises(UserError, match=f"^{group}=null: choose an option, or leave it out by ~{group}$"):
        quoted([f"{group}=null"])


@pytest.mark.parametrize("arguments", [["-m", "train.iters=1,2"], ["--config-dir=my (dir)"], ["~dataset.root"]])
def test_what_hydra_takes_is_left_to_it(arguments):
    assert quoted(arguments) == arguments


def test_a_home_folder_is_expanded_wherever_it_is_typed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = validate(composed(*quoted(["store=~/s", "dataset.root='$HOME/d'", "+dataset.source.cache=~/c"])))
    assert (config.store, config.dataset.root) == ("/home/me/s", "/home/me/d")
    assert config.dataset.source["cache"] == "/home/me/c"
    assert quoted(["hydra.run.dir=~/out"]) == ["hydra.run.dir=/home/me/out"]


REFUSED = {
    "dataset=kitti": "dataset=kitti: there is no such option; there are ade20k, camvid, cityscapes",
    "model/loss=ohm": "model/loss=ohm: there is no such option; did you mean ohem?",
    "hydra/launcher=jobli": "hydra/launcher=jobli: there is no such option; did you mean joblib?",
    "modle=unet": "modle: there is no such key; did you mean model?",
    "store.path=x": "store.path: there is no such key; remove it",
    "compress.ratio=0.3": "compress.ratio: there is no such key in this compress; choose one that has it: compress=",
    "train.iters=[1,2": "no viable alternative at input '[1,2'",
}


@pytest.mark.parametrize(("override", "words"), REFUSED.items(), ids=REFUSED)
def test_what_hydra_refuses_is_one_line_with_what_there_is(override, words):
    with pytest.raises((HydraException, OmegaConfBaseException)) as error:
        composed(override)
    assert words in in_one_line(error.value) and "\n" not in in_one_line(error.value)
