"""Lists, folders and public data sets are read as they lie on the disk; what is wrong is named with its remedy."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from segslim.data import FileList, Folder, Images, Voc
from segslim.data.checks import check_pairs
from segslim.data.layouts import pseudo_label
from segslim.data.loading import TrainingSet, ValidationBatches
from segslim.errors import UserError
from segslim.plugins import instantiate
from tests.command import config
from tests.data import layouts


def refused(source, split="train"):
    with pytest.raises(UserError) as error:
        source.pairs(None, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(source, split):
    return [pair.image.stem for pair in source.pairs(None, split)]


# Lists in PaddleSeg's format


@pytest.mark.parametrize("separator", [" ", "\t", ",", "|"])
def test_pairs_are_those_of_the_list_for_any_separator(tmp_path, separator):
    source = layouts.file_list(tmp_path / "any root", separator=separator)
    train, val = source.pairs(None, "train"), source.pairs(None, "val")
    assert [pair.line for pair in train] == [1, 2, 3] and len(val) == 1
    assert all(pair.image.is_file() and pair.label.name == pair.image.name for pair in train + val)
    assert val[0].where == f"{tmp_path / 'any root' / 'val.txt'}:1"
    assert (" " in val[0].image.name) == (separator != " ")
    if separator == "\t":
        for typed in ("tab", "\\t"):
            assert FileList(source.root, "train.txt", "val.txt", typed).pairs(None, "train") == train


def test_blank_lines_other_line_ends_and_a_byte_order_mark_are_ignored(tmp_path):
    source = layouts.file_list(tmp_path)
    text = (tmp_path / "train.txt").read_text().replace("\n", "  \r\n\r\n")
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [pair.line for pair in source.pairs(None, "train")] == [1, 3, 5]


WRITTEN = {
    "by Windows": lambda text: ("\ufeff" + text.replace("/", "\\").replace("\n", "\r\n")).encode(),
    "as Windows' Unicode": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "with spaces in paths and between them": lambda text: text.replace("\t", " ").encode(),
    "by a spreadsheet": lambda text: text.replace("\t", ";").encode(),
    "with commas and blanks": lambda text: text.replace("\t", ", ").encode(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_list_is_read_however_it_was_written(tmp_path, how):
    source = layouts.file_list(tmp_path, separator="\t")
    expected = source.pairs(None, "train")
    (tmp_path / "train.txt").write_bytes(WRITTEN[how]((tmp_path / "train.txt").read_text()))
    assert FileList(tmp_path, "train.txt", "val.txt").pairs(None, "train") == expected


def test_lists_elsewhere_and_absolute_paths_are_followed(tmp_path):
    pairs = layouts.file_list(tmp_path / "data").pairs(None, "train")
    elsewhere = tmp_path / "lists.txt"
    elsewhere.write_text("".join(f"{pair.image} {pair.label}\n" for pair in pairs))
    found = FileList(tmp_path, elsewhere, elsewhere).pairs(None, "val")
    assert [pair.image for pair in found] == [pair.image for pair in pairs]


@pytest.mark.parametrize("folder", ["with a space", "图像", "a/../b"])
def test_a_root_of_any_name_works(tmp_path, folder):
    (tmp_path / "a").mkdir()
    source = layouts.file_list(tmp_path / folder, separator="\t")
    lines = "".join(f"../{source.root.name}/images/my {n}.png\tlabels/my {n}.png\n" for n in range(3))
    (source.root / "train.txt").write_text(lines, encoding="utf-8")
    assert check_pairs(source.pairs(None, "train"), 3).pairs == 3


LISTS = {
    "empty": (b"\n", r"train\.txt is empty"),
    "one column": (b"only.png", r"train\.txt:1 has 1 columns.*dataset\.source\.separator"),
    "three columns": (
        b"images/0.png labels/0.png\na b.png c.png",
        r"train\.txt:2 has 3 columns.*dataset\.source\.separator",
    ),
    "another encoding": ("a.png 眼底照片.png".encode("gbk"), r"train\.txt:1 is not in UTF-8"),
    "a missing image": (b"images/9.png labels/0.png", r"train\.txt:1: the image .*9\.png does not exist"),
    "a missing label": (b"images/0.png labels/9.png", r"train\.txt:1: the label .*9\.png does not exist"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_bad_line_is_named_with_its_number(tmp_path, name):
    content, words = LISTS[name]
    source = layouts.file_list(tmp_path)
    (tmp_path / "train.txt").write_bytes(content)
    assert re.search(words, refused(source))


UNREADABLE = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
    "null\0byte": lambda path: None,
    "long" * 2000: lambda path: None,
    "long/" * 2000: lambda path: None,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("name", UNREADABLE, ids=lambda name: ascii(name)[:12])
def test_what_is_no_file_is_named_or_skipped(tmp_path, name, kind):
    source = layouts.file_list(tmp_path)
    UNREADABLE[name](tmp_path / name)
    pair = f"{name} labels/0.png" if kind == "image" else f"images/0.png {name}"
    (tmp_path / "train.txt").write_text(f"images/1.png labels/1.png\n{pair}\n")
    for work in (source.identity, lambda: source.pairs(None, "train")):
        with pytest.raises(UserError, match=rf"train\.txt:2: the {kind} "):
            work()
    assert source.identity(strict=False)
    skipped = []
    pairs = source.pairs(None, "train", strict=False)
    assert check_pairs(pairs, 3, on_fault=lambda at, error: skipped.append(at)).pairs == 1
    assert skipped == [1]


def test_a_name_that_is_not_utf8_is_one_line(tmp_path):
    layouts.file_list(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / kind / "0.png").rename(tmp_path / kind / os.fsdecode("视网膜.png".encode("gbk")))
    with pytest.raises(UserError, match="is not in UTF-8: rename it"):
        Folder(tmp_path).pairs(None, "train")


def test_an_empty_column_is_named(tmp_path):
    source = layouts.file_list(tmp_path, separator=",")
    (tmp_path / "train.txt").write_text("images/my 0.png,\n")
    assert "train.txt:1 has 2 columns" in refused(source)


def test_a_missing_root_or_list_is_named_with_its_key(tmp_path):
    source = layouts.file_list(tmp_path)
    assert re.search(r"nowhere does not exist.*dataset\.root", refused(FileList(tmp_path / "nowhere", "a", "b")))
    (tmp_path / "val.txt").unlink()
    assert re.search(r"val\.txt does not exist.*dataset\.source\.val_list", refused(source, "val"))


# Two folders


@pytest.fixture
def root(tmp_path):
    layouts.folder(tmp_path / "mine")
    return tmp_path / "mine"


def test_every_pair_of_a_folder_is_in_one_split(root):
    train, val = (Folder(root).pairs(None, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert {pair.image for pair in train + val} == set((root / "images").rglob("*.jpg"))
    assert all(pair.image.stem == pair.label.stem for pair in train + val)
    assert check_pairs(train, 3).pairs == 8


def test_the_split_depends_on_the_seed_and_not_on_the_place(root, tmp_path):
    splits = {seed: names(Folder(root, seed=seed), "val") for seed in range(6)}
    assert len(set(map(tuple, splits.values()))) > 3
    layouts.folder(tmp_path / "other")
    assert names(Folder(tmp_path / "other", seed=3), "val") == splits[3]
    assert Folder(root, seed=0).identity() != Folder(root, seed=1).identity()


def test_further_images_leave_validation_images_where_they_are(root):
    before = set(names(Folder(root), "val"))
    for index in range(10, 13):
        layouts.write_image(root / "images" / f"{index}.png")
        layouts.write_label(root / "labels" / f"{index}.png", [0])
    after = set(names(Folder(root), "val"))
    assert len(before - after) <= len(after - before) <= 3


@pytest.mark.parametrize(("share", "val"), [(0.001, 1), (0.5, 5), (0.999, 9)])
def test_the_share_is_met_and_neither_split_is_empty(root, share, val):
    assert len(names(Folder(root, val_share=share), "val")) == val


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_that_leaves_a_split_empty_is_refused(root, share):
    with pytest.raises(UserError, match=rf"dataset\.source\.val_share={share}.*between 0 and 1"):
        names(Folder(root, val_share=share), "val")


def test_images_without_labels_are_split_as_with_them(root, tmp_path):
    source = Images(root / "images")
    splits = {split: source.pairs(tmp_path, split) for split in ("train", "val")}
    assert {split: [pair.image.stem for pair in pairs] for split, pairs in splits.items()} == {
        split: names(Folder(root), split) for split in ("train", "val")
    }
    assert check_pairs(splits["train"], 3).pairs == len(splits["train"])
    first = splits["val"][0]
    layouts.write_label(pseudo_label(tmp_path, first), [1])
    assert [pair.label is not None for pair in source.pairs(tmp_path, "val")][:2] == [True, False]
    assert len(source.identity()) == 64 and source.identity() != Folder(root).identity()


def test_a_folder_that_is_missing_or_without_images_is_named(root):
    assert re.search(r"masks does not exist.*labels", refused(Folder(root, labels="masks")))
    (root / "none").mkdir()
    (root / "none" / "notes.txt").write_text("none yet")
    assert re.search(r"none holds no images.*dataset\.root", refused(Folder(root, images="none")))


@pytest.mark.parametrize(
    ("removed", "words"),
    [("labels/day1/3.png", "the image .*3.jpg has no label"), ("images/day1/3.jpg", "the label .*3.png has no image")],
)
def test_half_a_pair_is_named_or_skipped(root, removed, words):
    (root / removed).unlink()
    assert re.search(words, refused(Folder(root)))
    faults = {}
    pairs = [pair for split in ("train", "val") for pair in Folder(root).pairs(None, split, strict=False)]
    assert check_pairs(pairs, 3, on_fault=faults.__setitem__).pairs == 9 and len(faults) == 1


def test_two_files_of_one_name_are_named(root):
    layouts.write_image(root / "images" / "day1" / "3.png")
    assert re.search(r"3\.jpg and .*3\.png have one name", refused(Folder(root)))


def test_a_single_pair_cannot_be_split(tmp_path):
    layouts.folder(tmp_path, count=1)
    assert "at least two" in refused(Folder(tmp_path))


# Public data sets; tests/stages/test_data.py reads each of them


def source_of(name, root):
    return instantiate(config(f"dataset={name}", f"dataset.root={root}").dataset.source, "dataset.source")


def test_cityscapes_pairs_belong_to_one_frame_and_what_is_missing_is_named(tmp_path):
    layouts.cityscapes(tmp_path)
    source = source_of("cityscapes", tmp_path)
    for pair in source.pairs(None, "train"):
        frame = pair.image.name.removesuffix("_leftImg8bit.png")
        assert frame == pair.label.name.removesuffix("_gtFine_labelTrainIds.png")
    summary = check_pairs(source.pairs(None, "val"), 19)
    assert summary.pairs == 2 and summary.class_pixels[18] and summary.ignored_pixels
    for label in tmp_path.rglob("*labelTrainIds.png"):
        label.unlink()
    assert "gtFine/train holds no labels named *_gtFine_labelTrainIds" in refused(source)
    with pytest.raises(UserError, match=r"dataset\.source\.splits=\['train'\]"):
        Folder(tmp_path, splits=["train"])


@pytest.mark.parametrize("given", ["", "VOC2012"])
def test_voc_takes_its_folder_or_the_one_around_it(tmp_path, given):
    layouts.voc(tmp_path)
    assert names(Voc(tmp_path / given), "train") == ["2007_000032", "2007_000039"]
    assert Voc(tmp_path / given).pairs(None, "train")[1].where.endswith("train.txt:2")


def test_voc_augmented_trains_on_more_and_validates_on_the_same(tmp_path):
    layouts.voc(tmp_path)
    assert "aug.txt does not exist" in refused(Voc(tmp_path, augmented=True))
    shutil.rmtree(tmp_path / "VOC2012")
    layouts.voc(tmp_path, augmented=True)
    plain, more = Voc(tmp_path), Voc(tmp_path, augmented=True)
    assert more.pairs(None, "train")[:2] == plain.pairs(None, "train")
    assert more.pairs(None, "train")[2].label.parent.name == "SegmentationClassAug"
    assert more.pairs(None, "val") == plain.pairs(None, "val")


def test_ade20k_classes_count_from_one_and_zero_is_ignored(tmp_path):
    layouts.ade20k(tmp_path)
    pair = source_of("ade20k", tmp_path).pairs(None, "train")[0]
    training = TrainingSet([pair], [], batch_size=1, seed=0).batch(0)["label"]
    (_, (validating,)), *_ = ValidationBatches([pair], [], batch_size=1)
    assert np.array_equal(training[0], validating) and set(np.unique(validating)) == {0, 149, 255}
    layouts.write_label(pair.label, [0, 1, 151])
    with pytest.raises(UserError, match=r"the value 151 \(class 150\) at row 0, column 2: .*0 to 149"):
        check_pairs([pair], 150)
