"""`python -m segslim.predict`, as a user types it, with Paddle out of reach."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from segslim.commands import main
from segslim.predict import open_predictor, read_image
from tests.predict.exports import COLOURS, predict


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["one.jpg", "two.png", "more/three.jpg"]):
        noise = np.random.default_rng(index).integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(noise).resize((120, 90), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def mask(path):
    with Image.open(path) as opened:
        return np.array(opened), opened.getpalette()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_folder_becomes_masks_and_overlays_without_paddle(export_folder, photographs, no_paddle, tmp_path, engine):
    answer = predict(export_folder, "photographs", "--engine", engine, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 0, answer.stderr
    assert re.search(
        rf"^3 images in [\d.]+ s: [\d.]+ images/s; in {engine} alone [\d.]+ ms an image$", answer.stdout, re.M
    )
    predictor = open_predictor(export_folder, engine)
    for name in ("one.jpg", "two.png", "more/three.jpg"):
        stem = name.rpartition(".")[0]
        ids, palette = mask(tmp_path / "predictions" / "masks" / f"{stem}.png")
        assert np.array_equal(ids, predictor.predict(read_image(photographs / name)))
        assert palette[: 3 * len(COLOURS)] == [level for colour in COLOURS for level in colour]
        with Image.open(tmp_path / "predictions" / "overlays" / f"{stem}.jpg") as overlay:
            assert overlay.width == 120 and overlay.height >= 90  # a legend of the classes may stand below


def test_a_run_is_predicted_with_in_the_engine_that_it_selected(export_folder, photographs, no_paddle, tmp_path):
    run = tmp_path / "outputs" / "today" / "now"
    run.mkdir(parents=True)
    network = {"deployment": str(export_folder), "engine": "openvino", "session": {"precision": "float32"}}
    (run / "report.json").write_text(json.dumps({"compressed": network}))
    for typed in (run, "last"):
        answer = predict(typed, photographs / "one.jpg", cwd=tmp_path, without_paddle=no_paddle)
        assert answer.returncode == 0 and "1 image in" in answer.stdout and "in openvino alone" in answer.stdout
    (run / "report.json").write_text(json.dumps({"compressed": {**network, "deployment": str(tmp_path / "gone")}}))
    answer = predict("last", photographs, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2 and "has been deleted" in answer.stderr and answer.stderr.count("\n") == 1


def test_one_image_and_another_output(export_folder, photographs, no_paddle, tmp_path):
    typed = [export_folder, photographs / "one.jpg", "--output", "results/here", "--threads", "1"]
    answer = predict(*typed, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 0, answer.stderr
    assert "shrunk" not in answer.stderr
    assert sorted(path.name for path in (tmp_path / "results").rglob("*.*")) == ["one.jpg", "one.png"]


def test_an_unreadable_image_is_named_skipped_and_counted(export_folder, photographs, no_paddle, tmp_path):
    Image.new("RGB", (900, 700)).save(photographs / "two.png")
    (photographs / "broken.jpg").write_bytes((photographs / "one.jpg").read_bytes()[:300])
    (photographs / "bell\x07.png").write_bytes(b"no image")
    answer = predict(export_folder, photographs, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 1
    assert re.search(r"^skipped: .*broken\.jpg.* cannot be read", answer.stderr, re.M)
    assert r"bell\x07.png" in answer.stderr and "\x07" not in answer.stderr
    assert "1 of 5 images are shrunk by more than 4" in answer.stderr and "--is_slide" in answer.stderr
    assert "2 of 5 images skipped" in answer.stderr and answer.stdout.startswith("3 images in")
    assert len(list((tmp_path / "predictions" / "masks").rglob("*.png"))) == 3


def test_an_export_that_is_none_is_one_line_and_exit_code_2(export_folder, photographs, no_paddle, tmp_path):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    (folder / "deploy.yaml").write_text("Deploy: {model: m, params: p, transforms: [{type: RandomNoise}]}")
    answer = predict(folder, photographs, cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert "'RandomNoise' is not among" in answer.stderr


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("--stride 8 8", "--is_slide"),
        ("--flip_horizontal", "--aug_pred"),
        ("--is_slide --crop_size 8 8 --stride 9 8", "--stride"),
    ],
)
def test_an_option_that_would_be_ignored_or_leaves_gaps_is_one_line(export_folder, photographs, capsys, typed, named):
    assert main(["predict", str(export_folder), str(photographs), *typed.split()]) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1


def test_help_says_how_to_call_it(no_paddle, tmp_path):
    answer = predict("--help", cwd=tmp_path, without_paddle=no_paddle)
    assert answer.returncode == 0 and "RUN [SOURCE]" in answer.stdout
