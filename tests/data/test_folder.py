"""Images and labels side by side: paired by path, split by the seed."""

import re
from pathlib import Path

import pytest

from segslim.data import Folder
from segslim.data.checks import check_pairs
from segslim.errors import UserError
from tests.data import layouts


@pytest.fixture
def root(tmp_path):
    layouts.folder(tmp_path / "mine")
    return tmp_path / "mine"


def names(source, split):
    return [pair.image.stem for pair in source.pairs(Path(), split)]


def refused(source, split="train"):
    with pytest.raises(UserError) as error:
        source.pairs(Path(), split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_pair_is_in_one_split_and_passes_the_checks(root):
    train, val = (Folder(root).pairs(Path(), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert {pair.image for pair in train + val} == set((root / "images").rglob("*.jpg"))
    assert all(pair.image.stem == pair.label.stem for pair in train + val)
    check_pairs(train, 3)


def test_the_split_depends_on_the_seed_and_not_on_the_place(root, tmp_path):
    splits = {seed: names(Folder(root, seed=seed), "val") for seed in range(6)}
    assert len(set(map(tuple, splits.values()))) > 3
    layouts.folder(tmp_path / "other")
    assert names(Folder(tmp_path / "other", seed=3), "val") == splits[3]


def test_another_split_is_another_identity(root):
    assert Folder(root, seed=0).identity() != Folder(root, seed=1).identity()
    assert Folder(root).identity() == Folder(root).identity()


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
    with pytest.raises(UserError, match=r"dataset\.source\.val_share=.*between 0 and 1"):
        Folder(root, val_share=share)


def test_a_missing_folder_is_named(root):
    assert re.search(r"masks does not exist: it should hold the labels", refused(Folder(root, labels="masks")))


def test_a_folder_without_images_is_named(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "notes.txt").write_text("none yet")
    assert re.search(r"images holds none of the images", refused(Folder(tmp_path)))


@pytest.mark.parametrize(
    ("removed", "words"),
    [("labels/day1/3.png", "the image .*3.jpg has no label"), ("images/day1/3.jpg", "the label .*3.png has no image")],
)
def test_half_a_pair_is_named(root, removed, words):
    (root / removed).unlink()
    assert re.search(words, refused(Folder(root)))


def test_two_files_of_one_name_are_named(root):
    layouts.write_image(root / "images" / "day1" / "3.png")
    assert re.search(r"3\.jpg and .*3\.png have one name", refused(Folder(root)))


def test_a_single_pair_cannot_be_split(tmp_path):
    layouts.folder(tmp_path, count=1)
    assert "one image: give at least two" in refused(Folder(tmp_path))


def test_hidden_files_are_no_images(root):
    (root / "images" / "._3.jpg").write_bytes(b"")
    assert len(names(Folder(root), "train")) == 8


def test_a_bad_file_is_named_by_its_path_where_there_is_no_list(root):
    pair = Folder(root).pairs(Path(), "train")[0]
    pair.image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"^{re.escape(str(pair.image))}: cannot read the image"):
        check_pairs([pair], 3)
