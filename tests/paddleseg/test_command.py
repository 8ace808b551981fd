"""`run.py paddleseg=FILE` as a user types it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.command import poison, segslim
from tests.paddleseg.fragments import FLIP, NORMALIZE, STEP_SCALING, crop, lists, losses, network, quick_start, write


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


def test_a_file_that_will_not_do_is_one_line_with_exit_code_2(tmp_path, no_paddle):
    answer = segslim(f"paddleseg={write(tmp_path, quick_start(slim=1))}", cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("error: configs/net/mine.yml: slim: not known or not supported here")
    assert answer.stderr.count("\n") == 1


def test_a_sweep_goes_over_several_files(tmp_path, no_paddle):
    files = [write(tmp_path, quick_start(model=network(kind)), f"{kind}.yml") for kind in ("ENet", "UNet")]
    typed = ["-m", f"paddleseg={','.join(files)}", "compress.stages=[shrink]"]
    answer = segslim(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert f"paddleseg={files[0]}" in answer.stdout and f"paddleseg={files[1]}" in answer.stdout
    assert "there is no stage 'shrink'" in answer.stderr


def images(folder, sizes):
    """Images of these sizes with a bright square, which is class 1, and their lists."""
    folder.mkdir(parents=True)
    names = []
    for number, (width, height) in enumerate(sizes):
        image, label = np.full((height, width, 3), 40, np.uint8), np.zeros((height, width), np.uint8)
        image[10:30, 20:40], label[10:30, 20:40] = 220, 1
        Image.fromarray(image).save(folder / f"{number}.jpg")
        Image.fromarray(label).save(folder / f"{number}.png")
        names.append(f"{number}.jpg {number}.png\n")
    (folder / "train_list.txt").write_text("".join(names[:8]))
    (folder / "val_list.txt").write_text("".join(names[8:]))


@pytest.mark.slow
def test_a_paddleseg_project_is_trained_pruned_and_measured(tmp_path):
    images(tmp_path / "data" / "mine", [(80, 60), (96, 64), (64, 80), (100, 100), (80, 60)] * 2)
    project = {
        **quick_start(model=network("FastSCNN"), loss=losses("CrossEntropyLoss", coef=[1, 0.4])),
        **lists("data/mine", [STEP_SCALING, crop(64, 64), FLIP, NORMALIZE], [NORMALIZE]),
        "iters": 2,
        "batch_size": 2,
    }
    file = write(tmp_path, project)
    typed = [f"paddleseg={file}", "compress=prune_uniform", "compress.ratio=0.2", "engine=onnxruntime"]
    answer = segslim(
        *typed,
        "num_workers=0",
        "benchmark.warmup=1",
        "benchmark.iters=2",
        "benchmark.settle=0",
        "benchmark.seconds=0",
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count(f"{file}: val_dataset.transforms resize images to [64, 64]") == 1
    report = json.loads(next((tmp_path / "outputs").rglob("report.json")).read_text())
    assert report["model"] == "mine" and report["change"]["flops"] == pytest.approx(-0.2, abs=0.01)
