"""Every bad file of a data set is named with its line before training, or left out where the caller skips it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segslim.data import Folder, Pair
from segslim.data.checks import ImageSize, check_pairs
from segslim.data.images import Reading
from segslim.errors import UserError
from tests.data import layouts
from tests.data.test_images import encoded

NOISE = np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8)
GREY = NOISE[..., 0]


@pytest.fixture
def source(tmp_path):
    return layouts.file_list(tmp_path / "root", count=5)


@pytest.fixture
def root(source):
    return source.root


def label_with(value, dtype=np.uint8):
    label = np.zeros((16, 20), dtype)
    label[3, 4] = value
    return encoded(label)


FAULTS = {
    "image truncated": ("image", encoded(NOISE)[:-40], "cannot be read"),
    "image of 1 x 1": ("image", encoded(NOISE[:1, :1]), "1 x 1 pixels"),
    "image missing": ("image", None, "does not exist"),
    "label truncated": ("label", encoded(GREY)[:-40], "cannot be read"),
    "label of RGB": ("label", encoded(NOISE), "3 channels"),
    "label out of range": ("label", label_with(9), "the value 9 at row 3, column 4"),
    "label out of range in 16 bits": ("label", label_with(4000, np.uint16), "the value 4000 at row 3, column 4"),
    "label of only ignored": ("label", encoded(np.full((16, 20), 255, np.uint8)), "nothing but the ignored 255"),
    "label of another size": ("label", encoded(np.zeros((16, 21), np.uint8)), "21 x 16 but its image is 20 x 16"),
    "a mask for each class": ("label", encoded(np.zeros((16, 60), np.uint8)), "3 times as wide"),
    "label missing": ("label", None, "does not exist"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_line_or_left_out(source, root, name):
    kind, content, words = FAULTS[name]
    file = root / f"{kind}s" / "1.png"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UserError) as error:
        check_pairs(source.pairs(None, "train"), 3)
    assert re.search(rf"train\.txt:2\b.* {kind} .*1\.png .*{re.escape(words)}", str(error.value))
    assert "\n" not in str(error.value)
    faults = {}
    summary = check_pairs(source.pairs(None, "train", strict=False), 3, on_fault=faults.__setitem__)
    assert summary.pairs == 3 and list(faults) == [1] and words in str(faults[1])


def test_the_summary_counts_pixels_and_sizes(source):
    steps = []
    pairs = source.pairs(None, "train")
    summary = check_pairs(pairs, 3, progress=lambda done, total: steps.append((done, total)))
    labels = np.stack([np.array(Image.open(pair.label)) for pair in pairs])
    assert summary.pairs == 4 and summary.sizes == (ImageSize(20, 16, 4),)
    assert list(summary.class_pixels) == [(labels == index).sum() for index in range(3)]
    assert summary.ignored_pixels == (labels == 255).sum()
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_absent_class_is_warned_of(source):
    (warning,) = check_pairs(source.pairs(None, "train"), 4).warnings
    assert "no pixel of 4 labels has the class [3]" in warning


@pytest.mark.parametrize(("stored", "remedy"), [((0, 255), "{255: 1}"), ((1, 255), "{255: 0}")])
def test_a_mask_of_one_class_and_the_ignored_number_is_told_with_the_mapping_that_mends_it(tmp_path, stored, remedy):
    pairs = masks(tmp_path, stored)
    (warning,) = check_pairs(pairs, 2).warnings
    assert "nothing to learn" in warning and f"dataset.label_map={remedy}" in warning
    mapped = [replace(pair, reading=Reading(label_map={255: 1 - stored[0]})) for pair in pairs]
    summary = check_pairs(mapped, 2)
    assert not summary.warnings and all(summary.class_pixels) and not summary.ignored_pixels


def test_labels_that_are_jpegs_are_warned_of(source, root):
    (root / "labels" / "1.jpg").write_bytes(encoded(np.zeros((16, 20), np.uint8), ".jpg"))
    (root / "train.txt").write_text("images/0.png labels/0.png\nimages/1.png labels/1.jpg\n")
    (warning,) = check_pairs(source.pairs(None, "train"), 3).warnings
    assert re.search(r"train\.txt:2: the label .*1\.jpg is a JPEG, .* save labels as PNG", warning)


def test_numbers_that_are_no_classes_are_mapped(tmp_path):
    pairs = masks(tmp_path, (0, 127, 254))
    with pytest.raises(UserError, match=r"holds the value 127 .*dataset\.label_map=\{127: CLASS\}"):
        check_pairs(pairs, 2)
    mapped = [replace(pair, reading=Reading(label_map={127: 1, 254: 255})) for pair in pairs]
    summary = check_pairs(mapped, 2)
    assert all(summary.class_pixels) and summary.ignored_pixels


def masks(folder, stored):
    layouts.write_image(folder / "image.png")
    layouts.write_label(folder / "label.png", list(stored))
    return [Pair(folder / "image.png", folder / "label.png", 1, folder / "list.txt")]


def test_the_ignored_value_may_be_a_class_number(source, root):
    for index in range(4):
        (root / "labels" / f"{index}.png").write_bytes(label_with(1))
    summary = check_pairs(source.pairs(None, "train"), 2, ignore_index=0)
    assert (summary.class_pixels, summary.ignored_pixels) == ((0, 4), 4 * (16 * 20 - 1))


def test_an_image_that_its_exif_turns_fits_a_label_of_the_turned_size_alone(source, root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 16, 3), np.uint8)).save(root / "images" / "0.jpg", exif=exif)
    (root / "train.txt").write_text("images/0.jpg labels/0.png\n")
    assert check_pairs(source.pairs(None, "train"), 3).sizes == (ImageSize(20, 16, 1),)
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(root / "images" / "0.jpg", exif=exif)
    with pytest.raises(UserError, match=r"0\.png is 20 x 16 but its image is 16 x 20 pixels as its EXIF"):
        check_pairs(source.pairs(None, "train"), 3)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("axes", [(16, 20), (16, 20, 3)])
def test_images_of_fewer_bits_than_their_files_are_refused_with_the_remedy(source, root, bits, axes):
    deep = np.random.default_rng(0).integers(0, 1 << bits, axes).astype(np.uint16)
    deep[0, 0] = (1 << bits) - 1
    for file in (root / "images").iterdir():
        file.write_bytes(encoded(deep))
    with pytest.raises(UserError, match=f"nearly black; give dataset.max_value={(1 << bits) - 1}"):
        check_pairs(source.pairs(None, "train"), 3)
    pairs = [replace(p, reading=Reading(max_value=(1 << bits) - 1)) for p in source.pairs(None, "train")]
    assert check_pairs(pairs, 3).pairs == 4 and pairs[0].read_image().max() == 255


def test_a_conversion_is_warned_of_once_with_the_first_image(source, root):
    for index in (1, 3):
        (root / "images" / f"{index}.png").write_bytes(encoded(GREY))
    (warning,) = check_pairs(source.pairs(None, "train"), 3).warnings
    assert re.findall(r"train\.txt:(\d): .*1 more.* is grey", warning) == ["2"]


def test_a_repeated_image_is_named_with_the_line_it_repeats(source, root):
    with (root / "train.txt").open("a") as lines:
        lines.write("images/../images/0.png labels/0.png\n")
    with pytest.raises(UserError, match=r"train\.txt:5: the image .*0\.png .* line 1"):
        check_pairs(source.pairs(None, "train"), 3)


def test_a_bad_file_in_no_list_is_named_by_its_path(tmp_path):
    layouts.folder(tmp_path)
    pair = Folder(tmp_path).pairs(None, "train")[0]
    pair.image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"^the image {re.escape(str(pair.image))} cannot be read"):
        check_pairs([pair], 3)


def test_the_stage_skips_faults_and_refuses_an_empty_split(source, root, tmp_path):
    from tests.stages.test_data import run

    typed = ["dataset=file_list", "dataset.num_classes=3", "dataset.size=[64,64]", f"dataset.root={root}"]
    typed += ["dataset.source.train_list=train.txt", "dataset.source.val_list=val.txt", "dataset.on_error=skip"]
    (root / "images" / "1.png").write_bytes(b"")
    assert run(tmp_path / "artifact", *typed) == "3 train, 1 val images, 1 skipped"
    assert list(json.loads((tmp_path / "artifact" / "skipped.json").read_text())["train"]) == ["1"]
    (root / "images" / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"on_error=skip.* val .*val\.txt:1"):
        run(tmp_path / "empty", *typed)
