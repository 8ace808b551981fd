"""Videos, and images that are on earth or too large for memory."""

import csv
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from segslim.commands import main
from segslim.predict import open_predictor, sources
from segslim.predict.results import KINDS
from tests.command import ROOT
from tests.predict.exports import COLOURS, NORMALIZE, write_export

SIZE, FPS = (100, 74), 7.0


def scene(number, size=SIZE):
    """Smooth, and another one for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)


def film(file, frames):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE)
    for number in range(frames):
        writer.write(scene(number)[..., ::-1])
    writer.release()
    return file


def frames_of(file):
    capture, frames = cv2.VideoCapture(str(file)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_a_video_becomes_a_video_and_a_mask_for_each_frame(export_folder, tmp_path, capsys):
    video, output = film(tmp_path / "street.avi", 8), tmp_path / "out"
    assert main(["predict", str(export_folder), str(video), "--output", str(output), "--write", *KINDS]) == 0
    assert capsys.readouterr().out.startswith("8 frames in ")
    predictor = open_predictor(export_folder)
    for number, frame in enumerate(frames_of(video)[0]):
        with Image.open(output / "masks" / "street" / f"{number:06d}.png") as mask:
            assert np.array_equal(np.array(mask), predictor.predict(np.ascontiguousarray(frame[..., ::-1])))
    overlays, fps = frames_of(output / "overlays" / "street.mp4")
    assert len(overlays) == 8 and fps == FPS
    assert overlays[0].shape[1] == SIZE[0] and overlays[0].shape[0] > SIZE[1]  # a legend is below
    areas = list(csv.DictReader((output / "areas.csv").open(encoding="utf-8")))
    assert [row["image"] for row in areas] == [f"street/{number:06d}" for number in range(8) for _ in COLOURS]
    assert len(list((output / "polygons" / "street").iterdir())) == 8


def test_a_video_is_predicted_as_far_as_asked(export_folder, tmp_path):
    video = film(tmp_path / "street.avi", 8)
    typed = ["predict", str(export_folder), str(video), "--output", str(tmp_path / "out"), "--write", "masks"]
    assert main([*typed, "--frames", "3"]) == 0
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3


def test_a_signal_keeps_what_is_done_and_the_video_can_be_played(export_folder, tmp_path):
    film(tmp_path / "long.avi", 1500)
    command = [sys.executable, "-m", "segslim", "predict", str(export_folder), "long.avi", "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    masks = tmp_path / "predictions" / "masks" / "long"
    while not (masks / "000005.png").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    done = len(list(masks.iterdir()))
    assert (
        process.returncode == 128 + signal.SIGINT
        and said == f"stopped after {done} frames: what was predicted is written\n"
    )
    assert 5 < done < 1500 and len(frames_of(tmp_path / "predictions" / "overlays" / "long.mp4")[0]) == done


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("torn.mp4", "torn.mp4: cannot be opened"),
        ("7", "camera 7: cannot be opened"),
        ("nothing.mp4", "nothing.mp4 does not exist: give an image, a video"),
    ],
)
def test_what_is_no_video_is_one_line(source, said, export_folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(export_folder), source]) == 2
    assert said in capfd.readouterr().err


@pytest.fixture(scope="module")
def of_windows(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("windows"), size=(64, 32), transforms=[NORMALIZE])


PLACE = {"transform": Affine(0.5, 0, 400000, 0, -0.5, 5800000), "crs": "EPSG:32633"}


def on_earth(file, size):
    with rasterio.open(
        file, "w", driver="GTiff", width=size[0], height=size[1], count=3, dtype="uint8", tiled=True, **PLACE
    ) as opened:
        opened.write(np.moveaxis(scene(0, size), -1, 0))
    return file


@pytest.mark.parametrize("most", [100_000_000, 1000])
def test_a_mask_is_where_its_image_is_also_where_windows_are_read_one_by_one(of_windows, tmp_path, monkeypatch, most):
    image, output = on_earth(tmp_path / "field.tif", (200, 150)), tmp_path / "out"
    typed = ["predict", str(of_windows), str(image), "--is_slide", "--stride", "40", "20"]
    monkeypatch.setattr(sources, "MOST_PIXELS", most)
    assert main([*typed, "--output", str(output), "--write", "masks", "overlays", "polygons", "areas"]) == 0
    whole = np.array(expected(of_windows, scene(0, (200, 150))))
    with rasterio.open(output / "masks" / "field.tif") as mask:
        assert np.array_equal(mask.read(1), whole)
        assert mask.crs == PLACE["crs"] and mask.transform == PLACE["transform"]
        assert mask.colormap(1)[1][:3] == COLOURS[1]
    assert (output / "overlays" / "field.jpg").exists()
    rows = list(csv.DictReader((output / "areas.csv").open(encoding="utf-8")))
    for row in rows:
        assert float(row["square_metres"]) == (whole == int(row["class"])).sum() * 0.25
    assert '"Polygon"' in (output / "polygons" / "field.geojson").read_text(encoding="utf-8")


def expected(export, image):
    from segslim.evaluation.windows import Augmented

    return open_predictor(export, augmented=Augmented((64, 32), (40, 20))).predict(image)
