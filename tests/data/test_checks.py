"""A data set's bad files are found before work starts, each named with the line of its list."""

import logging
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from segslim.data.checks import ImageSize, check_pairs
from segslim.errors import UserError
from tests.data.files import write_file_list


@pytest.fixture
def root(tmp_path):
    write_file_list(tmp_path)
    return tmp_path


def check(root, num_classes=3):
    return check_pairs(write_pairs(root), num_classes)


def write_pairs(root):
    from segslim.data import FileList

    return FileList(root, "train.txt", "val.txt").pairs(root, "train")


def refused(root, num_classes=3):
    with pytest.raises(UserError) as error:
        check(root, num_classes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_summary_counts_pixels_and_sizes(root):
    summary = check(root)
    labels = np.stack([cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED) for pair in write_pairs(root)])
    assert summary.pairs == 3
    assert summary.sizes == (ImageSize(20, 16, 3),)
    assert list(summary.class_pixels) == [(labels == index).sum() for index in range(3)]
    assert summary.ignored_pixels == (labels == 255).sum()


def test_progress_reaches_the_end(root):
    told = []
    check_pairs(write_pairs(root), 3, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_class_that_never_occurs_is_warned_of(root, caplog):
    with caplog.at_level(logging.WARNING):
        check(root, num_classes=4)
    assert "no pixel of 3 labels has the class [3]" in caplog.text


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("content", [b"", b"no picture at all", "truncated"])
def test_an_unreadable_file_is_named(root, kind, content):
    path = root / f"{kind}s" / "1.png"
    path.write_bytes(path.read_bytes()[:-40] if content == "truncated" else content)
    assert re.search(rf"train\.txt:2: cannot read the {kind} .*1\.png", refused(root))


def test_a_truncated_jpeg_is_found_although_opencv_reads_it(root):
    path = root / "images" / "1.png"
    noise = np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:-150])
    assert cv2.imread(str(path)).shape == (16, 20, 3)
    assert "cannot read the image" in refused(root)


def test_a_label_of_another_size_is_named_with_both_sizes(root):
    cv2.imwrite(str(root / "labels" / "2.png"), np.zeros((16, 21), np.uint8))
    assert re.search(r"train\.txt:3: the label .*2\.png is 21 x 16 but its image is 20 x 16", refused(root))


def test_an_image_that_its_exif_turns_has_the_size_that_training_sees(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "images" / "0.jpg"
    Image.fromarray(np.zeros((20, 16, 3), np.uint8)).save(path, exif=exif)
    assert cv2.imread(str(path)).shape == (16, 20, 3)
    (root / "train.txt").write_text("images/0.jpg labels/0.png\n")
    assert check(root).sizes == (ImageSize(20, 16, 1),)


def test_a_coloured_label_is_refused(root):
    cv2.imwrite(str(root / "labels" / "0.png"), np.zeros((16, 20, 3), np.uint8))
    assert re.search(r"train\.txt:1: the label .*0\.png has 3 channels", refused(root))


def test_a_palette_label_counts_by_its_numbers(root):
    numbers = np.full((16, 20), 2, np.uint8)
    label = Image.fromarray(numbers, mode="P")
    label.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for index in range(3):
        label.save(root / "labels" / f"{index}.png")
    assert check(root).class_pixels == (0, 0, 3 * 16 * 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_value_that_is_no_class_is_named_with_its_place(root, dtype):
    label = np.zeros((16, 20), dtype)
    label[5, 7] = 9
    cv2.imwrite(str(root / "labels" / "1.png"), label)
    message = refused(root)
    assert re.search(r"train\.txt:2: the label .*1\.png holds the value 9 at row 5, column 7", message)
    assert "class (0 to 2)" in message
    assert "ignored 255" in message


def test_the_ignored_value_may_be_a_class_number(root):
    for index in range(3):
        label = np.zeros((16, 20), np.uint8)
        label[3, 4] = 1
        cv2.imwrite(str(root / "labels" / f"{index}.png"), label)
    summary = check_pairs(write_pairs(root), 2, ignore_index=0)
    assert (summary.class_pixels, summary.ignored_pixels) == ((0, 3), 3 * (16 * 20 - 1))
