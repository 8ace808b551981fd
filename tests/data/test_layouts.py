"""Public data sets are read as their archives unpack, and what is missing is said with its path and a remedy."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from segslim.data import Ade20k, Cityscapes, Voc
from segslim.data.checks import check_pairs
from segslim.data.labels import read_label
from segslim.data.loading import TrainingSet, validation_batches
from segslim.errors import UserError
from tests.data import layouts

LAYOUTS = {  # source, what writes its tree, training and validation images, classes
    "cityscapes": (Cityscapes, layouts.cityscapes, 3, 2, 19),
    "voc": (Voc, layouts.voc, 2, 1, 21),
    "ade20k": (Ade20k, layouts.ade20k, 3, 2, 150),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    source, write, train, val, classes = LAYOUTS[request.param]
    write(tmp_path / "data")
    return source(tmp_path / "data"), tmp_path / "data", train, val, classes


def refused(source, split="train"):
    with pytest.raises(UserError) as error:
        source.pairs(Path(), split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_are_found_and_pass_the_checks(layout):
    source, _, train, val, classes = layout
    for split, count in (("train", train), ("val", val)):
        summary = check_pairs(source.pairs(Path(), split), classes)
        assert summary.pairs == count
        assert summary.class_pixels[0] and summary.class_pixels[classes - 1] and summary.ignored_pixels


def test_identity_follows_the_content_and_not_the_place(layout, tmp_path):
    source, root, *_ = layout
    before = source.identity()
    assert type(source)(shutil.move(root, tmp_path / "moved")).identity() == before
    pair = type(source)(tmp_path / "moved").pairs(Path(), "val")[0]
    layouts.write_label(pair.label, [1], seed=5)
    assert type(source)(tmp_path / "moved").identity() != before


def test_a_missing_root_is_named_with_the_key_to_set(layout, tmp_path):
    assert re.search(r"nowhere does not exist.*set dataset\.root", refused(type(layout[0])(tmp_path / "nowhere")))


def test_an_empty_root_is_named_with_what_it_should_hold(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    assert re.search(
        r"empty/\S+ does not exist: it should hold .*set dataset\.root", refused(type(layout[0])(tmp_path / "empty"))
    )


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_missing_half_of_a_pair_is_named(layout, kind):
    source = layout[0]
    getattr(source.pairs(Path(), "train")[1], kind).unlink()
    assert re.search(
        r"has no (image|label) in .*: add it there|names the (image|label) .*does not exist", refused(source)
    )


def test_cityscapes_pairs_belong_to_one_frame(tmp_path):
    layouts.cityscapes(tmp_path)
    for pair in Cityscapes(tmp_path).pairs(Path(), "train"):
        assert pair.image.name.removesuffix("_leftImg8bit.png") == pair.label.name.removesuffix(
            "_gtFine_labelTrainIds.png"
        )


def test_cityscapes_without_train_ids_says_what_makes_them(tmp_path):
    layouts.cityscapes(tmp_path)
    for label in tmp_path.rglob("*labelTrainIds.png"):
        label.unlink()
    assert "csCreateTrainIdLabelImgs" in refused(Cityscapes(tmp_path))


@pytest.mark.parametrize("given", ["", "VOC2012"])
def test_voc_takes_its_folder_or_the_one_around_it(tmp_path, given):
    layouts.voc(tmp_path)
    pairs = Voc(tmp_path / given).pairs(Path(), "train")
    assert [pair.image.stem for pair in pairs] == ["2007_000032", "2007_000039"]
    assert pairs[1].where.endswith("train.txt:2")


def test_voc_augmented_trains_on_more_and_validates_on_the_same(tmp_path):
    layouts.voc(tmp_path, augmented=True)
    plain, more = Voc(tmp_path), Voc(tmp_path, augmented=True)
    assert more.pairs(Path(), "train")[:2] == plain.pairs(Path(), "train")
    assert more.pairs(Path(), "train")[2].label.parent.name == "SegmentationClassAug"
    assert more.pairs(Path(), "val") == plain.pairs(Path(), "val")


def test_voc_augmented_without_its_list_says_so(tmp_path):
    layouts.voc(tmp_path)
    assert re.search(r"aug\.txt does not exist", refused(Voc(tmp_path, augmented=True)))


def test_ade20k_classes_count_from_one_and_nought_is_ignored(tmp_path):
    layouts.ade20k(tmp_path)
    pair = Ade20k(tmp_path).pairs(Path(), "train")[0]
    assert set(np.unique(read_label(pair))) == {0, 149, 255}
    training = TrainingSet([pair], [], batch_size=1, seed=0).batch(0)["label"]
    (_, (validating,)), *_ = validation_batches([pair], [], batch_size=1)
    assert np.array_equal(training[0], validating) and set(np.unique(validating)) == {0, 149, 255}


def test_ade20k_label_out_of_range_is_named_by_the_number_in_the_file_and_its_class(tmp_path):
    layouts.ade20k(tmp_path)
    pairs = Ade20k(tmp_path).pairs(Path(), "train")
    layouts.write_label(pairs[0].label, [0, 1, 151])
    with pytest.raises(UserError, match=r"holds the value 151 \(class 150\) at row 0, column 2: no class \(0 to 149\)"):
        check_pairs(pairs, 150)
