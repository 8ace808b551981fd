"""What is typed wrong, or only asked: answered at once, in one line, without Paddle.

These are real processes, one for each way in which a command can end early; test_overrides.py has the wrong values.
"""

import os
import subprocess
import sys

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
    assert "paddleseg: FILE.yml" in shown.stdout
    assert all(section in shown.stdout for section in ("train", "retrain", "export", "benchmark", "objective"))
    assert "uv run run.py compress=prune\n" in shown.stdout


def test_help_has_a_line_for_each_option_and_stage_that_fits_the_screen(no_paddle, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    shown = segslim("-h", cwd=tmp_path, without_paddle=no_paddle).stdout.splitlines()
    lines = {line.split()[0]: line for line in shown if line.startswith("  ") and len(line.split()) > 1}
    for file in (ROOT / "conf").glob("*/*.yaml"):
        assert len(lines[file.stem]) > len(file.stem) + 20, file
    assert "ranking channels" in lines["score"] and max(map(len, shown)) <= 80


def test_the_version_is_that_of_the_project(no_paddle, tmp_path):
    assert segslim("--version", cwd=tmp_path, without_paddle=no_paddle).stdout == "segslim 0.1.0\n"


@pytest.mark.parametrize("typed", ["uv run run.py comp", "python run.py comp"])
def test_the_shell_completes_what_is_typed(tmp_path, typed):
    """As bash does it: the function is called with the line in COMP_LINE; `uv run` is played by a Python."""
    (tmp_path / "uv").write_text(f'#!/bin/bash\nshift; exec {sys.executable} "$@"\n')
    (tmp_path / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    for name in ("uv", "python"):
        (tmp_path / name).chmod(0o755)
    install = f"{sys.executable} run.py --shell-completion install=bash"
    call = f'COMP_LINE="{typed}" COMP_CWORD={len(typed.split()) - 1}; _segslim; echo "${{COMPREPLY[@]}}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = f'eval "$({install})"; complete -p uv >/dev/null && {call}'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert "compress=" in done.stdout.split(), done.stderr


def test_an_experiment_overrides_the_groups_and_the_command_line_overrides_it(tmp_path, no_paddle):
    typed = ["experiment=camvid_prune", "dataset.root=/data", "compress.ratio=0.4", "--cfg", "job", "--resolve"]
    shown = segslim(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert shown.returncode == 0, shown.stderr
    assert all(line in shown.stdout for line in ("name: camvid", "name: prune", "ratio: 0.4", "iters: 2000"))


WRONG = {
    "a range": (["compress=prune", "compress.ratio=1"], "compress.ratio=1"),
    "a criterion": (["compress=prune", "compress.criterion=taste"], "compress.criterion=taste"),
    "an order": (["stages.first=[data]"], "'export' needs a checkpoint"),
    "no root": (["dataset=camvid"], "dataset.root has no value"),
    "a missing root": (["dataset=camvid", "dataset.root=/nowhere/camvid"], "/nowhere/camvid"),
    "a missing checkpoint": (["train.checkpoint=none.pdparams"], "train.checkpoint=none.pdparams: cannot be read"),
    "an unwritable store": (["store=/proc/segslim"], "store=/proc/segslim: cannot be written"),
    "a range in a mapping": (["train={iters: 0}"], "train.iters=0: should be greater"),
    "a GPU": (["device=gpu"], "device=gpu: this Paddle is made for the CPU"),
    "a key that is gone": (["compress=prune", "compress.target=latency"], "compress.latency_ratio=0.7"),
    "no section": (["ratio=0.2"], "did you mean compress.ratio?"),
    "a section of several": (["iters=100"], "did you mean train.iters or retrain.iters"),
    "no group": (["prune"], "prune: should be KEY=VALUE; did you mean compress=prune?"),
    "dashes": (["--compress", "prune"], "--compress: keys are typed without dashes, as compress=VALUE"),
    "a sweep of configs": (["-m", "compress.ratio=0.1,0.2", "--cfg", "job"], "-m runs many jobs"),
    "an unknown option": (["compress=prun"], "did you mean prune"),
    "an unknown key": (["train.batch_sise=3"], "did you mean train.batch_size?"),
    "no value": (["compress.ratio"], "compress.ratio: should be KEY=VALUE"),
    "no strategy": (["~compress"], "Interpolation key 'compress.name' not found"),
    "a missing YAML": (["paddleseg=nofile.yml"], "nofile.yml: cannot be read"),
}


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_with_exit_code_2_before_any_work(tmp_path, no_paddle, overrides, words):
    """By `python -O`, too, which Hydra's parser does not survive."""
    answer = segslim(*overrides, cwd=tmp_path, without_paddle=no_paddle, without_asserts=True)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and words in answer.stderr
    assert answer.stderr.count("\n") == 1 and answer.stdout == ""


def test_a_list_file_that_names_a_missing_image_says_the_line(tmp_path, no_paddle):
    (tmp_path / "train_list.txt").write_text("images/a.png labels/a.png\n")
    (tmp_path / "val_list.txt").write_text("images/b.png labels/b.png\n")
    typed = ["dataset=file_list", f"dataset.root={tmp_path}", "dataset.num_classes=2"]
    answer = segslim(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert "train_list.txt:1" in answer.stderr and "images/a.png" in answer.stderr


def test_every_config_file_opens_with_the_command_that_uses_it():
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if not line.startswith("# @package"))
        assert first.startswith("# uv run run.py"), f"{file} opens with {first!r}"
        group = file.parent.relative_to(ROOT / "conf").as_posix()
        assert group == "." or f"{group}={file.stem}" in first, file
