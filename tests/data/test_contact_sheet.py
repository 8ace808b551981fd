"""The contact sheet shows images, labels in their colours, and the names of the classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segslim.data import Folder, Pair
from segslim.data.contact_sheet import TILE, contact_sheet
from tests.data import layouts

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def pair(folder: Path, image: np.ndarray, label: np.ndarray) -> Pair:
    Image.fromarray(image).save(folder / "image.png")
    Image.fromarray(label).save(folder / "label.png")
    return Pair(folder / "image.png", folder / "label.png", 0, folder)


def test_each_class_has_half_of_its_colour_and_ignored_pixels_none(tmp_path):
    image = np.full((3, 8, 3), 100, np.uint8)
    label = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 2, axis=1).repeat(3, axis=0)
    sheet = contact_sheet({"train": [pair(tmp_path, image, label)], "val": []}, COLOURS)
    found = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert {(178, 50, 50), (50, 178, 50), (50, 50, 178), (100, 100, 100)} <= found


def test_it_takes_samples_of_both_splits_and_images_of_any_shape(tmp_path):
    layouts.folder(tmp_path)
    pairs = {split: Folder(tmp_path).pairs(Path(), split) for split in ("train", "val")}
    wide = pair(tmp_path, np.zeros((2, 500, 3), np.uint8), np.zeros((2, 500), np.uint8))
    sheet = contact_sheet({**pairs, "val": [wide]}, COLOURS, ["one", "two", "three"])
    assert sheet.width > 4 * TILE and sheet.height > 2 * TILE


def test_grey_images_and_those_turned_by_their_camera_lie_under_their_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "grey.jpg", exif=exif)
    Image.fromarray(np.ones((20, 10), np.uint8)).save(tmp_path / "label.png")
    turned = Pair(tmp_path / "grey.jpg", tmp_path / "label.png", 0, tmp_path)
    sheet = contact_sheet({"train": [turned], "val": []}, COLOURS)
    assert sheet.getpixel((TILE + 20, 40)) == (0, 128, 0)


@pytest.mark.parametrize("count", [2, 150])
def test_a_legend_of_many_classes_is_cut(tmp_path, count):
    layouts.folder(tmp_path)
    pairs = {"train": Folder(tmp_path).pairs(Path(), "train"), "val": []}
    heights = [contact_sheet(pairs, COLOURS * 50, None).height, contact_sheet(pairs, COLOURS[:count], None).height]
    assert heights[0] - heights[1] < 100
