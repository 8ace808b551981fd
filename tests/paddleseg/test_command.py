"""`run.py paddleseg=FILE` as a user types it."""

import shutil

import pytest

from tests.command import poison, segslim
from tests.paddleseg.fragments import quick_start, write


@pytest.fixture
def no_paddle(tmp_path_factory):
    """PaddleSeg may be found, and read; it cannot be imported, since Paddle cannot."""
    folder = poison(tmp_path_factory.mktemp("no_paddle"))
    shutil.rmtree(folder / "paddleseg")
    return folder


def test_cfg_job_shows_the_translated_config_without_paddle(tmp_path, no_paddle):
    file = write(tmp_path, quick_start())
    typed = [f"paddleseg={file}", "compress=prune", "compress.ratio=0.35", "train.iters=7", "--cfg", "job"]
    shown = segslim(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert shown.returncode == 0, shown.stderr
    for line in ("_target_: paddleseg.models.BiSeNetV2", "ratio: 0.35", "iters: 7", "_target_: segslim.data.OpticDisc"):
        assert line in shown.stdout
    assert "FastSCNN" not in shown.stdout and "SyntheticFundus" not in shown.stdout


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (None, "configs/net/mine.yml: cannot be read (No such file or directory)"),
        ("model: [", "configs/net/mine.yml: is no valid YAML"),
        ({"_base_": "mine.yml"}, "configs/net/mine.yml: _base_ comes back to itself"),
        (quick_start(slim=1), "configs/net/mine.yml: slim: not known or not supported here"),
    ],
)
def test_a_file_that_will_not_do_is_one_line_with_exit_code_2(tmp_path, no_paddle, contents, words):
    file = "configs/net/mine.yml" if contents is None else write(tmp_path, contents)
    answer = segslim(f"paddleseg={file}", cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith(f"error: {words}") and answer.stderr.count("\n") == 1


def test_help_says_what_the_group_takes(tmp_path, no_paddle):
    assert "paddleseg: FILE.yml" in segslim("--help", cwd=tmp_path, without_paddle=no_paddle).stdout


TINY = ["train.iters=2", "retrain.iters=1", "train.batch_size=2", "benchmark.warmup=1", "benchmark.iters=2"]
ON_FUNDUS = ["dataset=synthetic_fundus", "dataset.size=[64,64]", "dataset.source.train_images=4"]
