"""What is typed wrong, or only asked: answered at once, in one line, without Paddle."""

import pytest

from tests.command import ROOT, poison, segslim


@pytest.fixture(scope="module")
def no_paddle(tmp_path_factory):
    return poison(tmp_path_factory.mktemp("no_paddle"))


def test_help_names_every_group_and_the_first_command(tmp_path, no_paddle):
    shown = segslim("--help", cwd=tmp_path, without_paddle=no_paddle)
    assert shown.returncode == 0, shown.stderr
    for group in ("model", "model/loss", "dataset", "compress", "engine", "logger", "experiment"):
        assert f"{group}: " in shown.stdout
    assert all(section in shown.stdout for section in ("train", "retrain", "export", "benchmark", "objective"))
    assert "uv run run.py compress=prune compress.ratio=0.2" in shown.stdout


def test_cfg_job_shows_the_composed_config_with_overrides(tmp_path, no_paddle):
    shown = segslim(
        "--cfg", "job", "--resolve", "compress=prune", "compress.ratio=0.35", cwd=tmp_path, without_paddle=no_paddle
    )
    assert shown.returncode == 0, shown.stderr
    assert "ratio: 0.35" in shown.stdout and "_target_: paddleseg.models.FastSCNN" in shown.stdout


WRONG = {
    "ratio of one": (["compress=prune", "compress.ratio=1"], "compress.ratio=1: should be less than 1"),
    "ratio of nought": (["compress=prune", "compress.ratio=0"], "compress.ratio=0: should be greater than 0"),
    "a word for a number": (["train.iters=many"], "train.iters=many: should be a valid integer"),
    "criterion": (["compress=prune", "compress.criterion=taste"], "compress.criterion=taste: should be one of l1_norm"),
    "engine": (["engine.candidates=[tensorflow]"], "engine.candidates=tensorflow: should be one of "),
    "stage": (["compress.stages=[data,train,shrink]"], "there is no stage 'shrink'; the stages are data, train, "),
    "another size": (["export.size=[64,64]"], "export.size=[64, 64]: should be dynamic or dataset.size=[160,160]"),
    "int8 by Paddle": (["compress=ptq", "engine=paddle"], "engine: none of paddle computes in int8 on this machine"),
    "order": (["compress.stages=[data,export]"], "stage 'export' needs a checkpoint, and no stage before it gives one"),
    "no root": (["dataset=camvid"], "dataset.root has no value: give dataset.root=..."),
    "missing root": (["dataset=camvid", "dataset.root=/nowhere/camvid"], "/nowhere/camvid"),
    "missing checkpoint": (
        ["train.checkpoint=none.pdparams"],
        "train.checkpoint=none.pdparams: cannot be read (No such",
    ),
    "processes": (
        ["train.batch_size=4", "train.processes=3"],
        "train.processes=3: should divide train.batch_size=4, since",
    ),
    "unwritable store": (["store=/proc/segslim"], "store=/proc/segslim: cannot be written"),
}


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_one_line_with_exit_code_2_before_any_work(tmp_path, no_paddle, overrides, words):
    answer = segslim(*overrides, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert answer.stderr.count("\n") == 1 and answer.stdout == ""


REFUSED = {
    "compress=prun": "compress=prun: there is no such option; did you mean prune",
    "dataset=imagenet": "dataset=imagenet: there is no such option; there are ade20k, camvid, cityscapes",
    "hydra/launcher=jobli": "hydra/launcher=jobli: there is no such option; did you mean joblib?",
    "train.batch_sise=3": "train.batch_sise: there is no such key; did you mean train.batch_size?",
    "modle=unet": "modle: there is no such key; did you mean model?",
    "store.path=x": "store.path: there is no such key; remove it",
    "compress.ratio=0.3": "compress.ratio: there is no such key in this compress; choose one that has it: compress=",
    "compress.ratio": "Error parsing override 'compress.ratio'",
    "train.iters=[1,2": "no viable alternative at input '[1,2'",
    "paddleseg=nofile.yml": "nofile.yml: cannot be read (No such file or directory); give a path from",
    "~compress": "Interpolation key 'compress.name' not found",
}


@pytest.mark.parametrize(("override", "words"), REFUSED.items(), ids=REFUSED)
def test_what_hydra_refuses_is_one_line_with_what_there_is(tmp_path, no_paddle, override, words):
    answer = segslim(override, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and words in answer.stderr
    assert answer.stderr.count("\n") == 1 and answer.stdout == ""


def test_a_list_file_that_names_a_missing_image_says_the_line(tmp_path, no_paddle):
    (tmp_path / "train_list.txt").write_text("images/a.png labels/a.png\n")
    (tmp_path / "val_list.txt").write_text("images/b.png labels/b.png\n")
    answer = segslim(
        "dataset=file_list", f"dataset.root={tmp_path}", "dataset.num_classes=2", cwd=tmp_path, without_paddle=no_paddle
    )
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert "train_list.txt:1" in answer.stderr and "images/a.png" in answer.stderr


def test_an_experiment_overrides_the_groups_and_the_command_line_overrides_it(tmp_path, no_paddle):
    typed = ["experiment=camvid_prune", "dataset.root=/data", "compress.ratio=0.4", "--cfg", "job"]
    shown = segslim(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert shown.returncode == 0, shown.stderr
    assert "name: camvid" in shown.stdout and "name: prune" in shown.stdout and "ratio: 0.4" in shown.stdout


def test_every_config_file_opens_with_the_command_that_uses_it():
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if not line.startswith("# @package"))
        assert first.startswith("# uv run run.py"), f"{file} opens with {first!r}"
        group = file.parent.relative_to(ROOT / "conf").as_posix()
        if group != ".":
            assert f"{group}={file.stem}" in first, file
