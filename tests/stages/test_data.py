"""The stage `data`, and what is known about a data set before any work."""

import json

import numpy as np
import pytest
from PIL import Image

from segslim.data import Pair
from segslim.data.images import Reading
from segslim.data.loading import TrainingSet
from segslim.data.source import Dataset
from segslim.errors import UserError
from segslim.pipeline.fingerprint import config_slice
from segslim.pipeline.stage import Workspace
from segslim.stages import STAGES
from segslim.stages.data import check_classes, remarks
from segslim.stages.shared.images import transforms
from segslim.stages.train import check_colours, check_ignored
from tests.command import config
from tests.data import layouts

#: A network of four convolutions on six small images.
TOWER = (
    "~model.network",
    "+model.network={_target_:tests.channels.small.Tower,num_classes:2}",
    "model.loss.coef=[1.0]",
    "dataset.size=[64,64]",
    "dataset.source.train_images=8",
    "dataset.source.val_images=2",
)


def run(folder, *overrides):
    folder.mkdir()
    workspace = Workspace(folder, folder, lambda what, done, total: None, lambda iteration, values: None)
    return STAGES["data"].run({}, config(*overrides), workspace)


def test_a_drawn_data_set_is_checked_and_pictured(tmp_path):
    typed = ["dataset.size=[64,64]", "dataset.source.train_images=3", "dataset.source.val_images=2"]
    assert run(tmp_path / "artifact", *typed) == "3 train, 2 val images"
    summary = json.loads((tmp_path / "artifact" / "summary.json").read_text())
    assert summary["train"]["pairs"] == 3 and sum(summary["val"]["class_pixels"]) == 2 * 64 * 64
    with Image.open(tmp_path / "artifact" / "samples.png") as samples:
        assert samples.width > 1000


OWN = {
    "folder": (layouts.folder, ["dataset.num_classes=3"], "8 train, 2 val images"),
    "cityscapes": (layouts.cityscapes, [], "3 train, 2 val images"),
    "voc": (layouts.voc, [], "2 train, 1 val images"),
    "ade20k": (layouts.ade20k, [], "3 train, 2 val images"),
    "optic_disc": (layouts.optic_disc, [], "2 train, 1 val images"),
}


@pytest.mark.parametrize("name", OWN)
def test_each_data_set_is_one_word_and_a_root(tmp_path, name):
    write, overrides, words = OWN[name]
    write(tmp_path / "root")
    root = f"dataset.root={tmp_path / 'root'}"
    assert run(tmp_path / "artifact", f"dataset={name}", root, *overrides) == words
    assert (tmp_path / "artifact" / "samples.png").is_file()


def test_a_name_and_a_colour_for_each_class_or_none():
    wrong = config("dataset=voc", "dataset.root=/data", "dataset.num_classes=3")
    right = config("dataset=voc", "dataset.root=/data", "dataset.classes=null", "dataset.colours=null")
    check_classes(right)
    with pytest.raises(UserError, match=r"dataset\.classes has 21 entries for dataset\.num_classes=3"):
        check_classes(wrong)
    with pytest.raises(UserError, match=r"dataset\.colours has 1 entries for dataset\.num_classes=2"):
        check_classes(config("dataset.colours=[[0,0,0]]"))


def test_a_level_out_of_range_is_named():
    with pytest.raises(UserError, match=r"dataset\.colours\.0\.1=256: should be less than or equal to 255"):
        config("dataset.colours=[[0,256,0],[0,0,0]]")


def test_colours_and_names_do_not_make_a_network_train_again():
    stage = STAGES["data"]
    plain, coloured = config(), config("dataset.colours=[[1,2,3],[4,5,6]]", "dataset.classes=[a,b]")
    assert config_slice(plain, stage.reads, stage.ignores) == config_slice(coloured, stage.reads, stage.ignores)
    export = STAGES["export"]
    assert config_slice(plain, export.reads) != config_slice(coloured, export.reads)


@pytest.mark.parametrize("augmentation", ["mild", "strong"])
def test_labels_are_padded_with_the_number_that_is_ignored(augmentation):
    typed = ["dataset=file_list", "dataset.root=d", "dataset.num_classes=4", f"dataset/augmentation={augmentation}"]
    made = transforms(config(*typed, "dataset.ignore_index=4"), "train")
    assert {t.label_padding_value for t in made if hasattr(t, "label_padding_value")} == {4}
    given = "dataset.train_transforms=[{_target_: paddleseg.transforms.RandomPaddingCrop, label_padding_value: 255}]"
    with pytest.raises(UserError, match=r"train_transforms\[0\]\.label_padding_value=255: .*ignore_index=4"):
        check_ignored(config(*typed, "dataset.ignore_index=4", given))


def test_bands_are_augmented_but_for_their_colours(tmp_path):
    np.save(tmp_path / "bands.npy", np.random.default_rng(0).integers(0, 256, (40, 60, 6), np.uint8))
    layouts.write_label(tmp_path / "label.png", [0, 1])
    Image.open(tmp_path / "label.png").resize((60, 40)).save(tmp_path / "label.png")
    pair = Pair(tmp_path / "bands.npy", tmp_path / "label.png", 0, tmp_path, reading=Reading(channels=6))
    typed = [
        "dataset=file_list",
        "dataset.root=d",
        "dataset.num_classes=2",
        "dataset.channels=6",
        "dataset.size=[64,48]",
    ]
    found = config(*typed, "dataset/augmentation=geometric")
    check_colours(found)
    batch = TrainingSet([pair], transforms(found, "train"), 4, seed=0).batch(0)
    assert batch["img"].shape == (4, 6, 48, 64) and batch["img"].std() > 0
    with pytest.raises(UserError, match=r"RandomDistort, is for colours; .*dataset/augmentation=geometric"):
        check_colours(config(*typed))


def test_photographs_that_shrink_much_are_told(tmp_path):
    sizes = [{"width": 1000, "height": 300, "images": 2}, {"width": 100, "height": 100, "images": 1}]
    split = {"sizes": sizes, "class_pixels": [5, 5]}
    dataset = Dataset(tmp_path, {"train": split, "val": split}, {"train": {}, "val": {}})
    (told,) = remarks(dataset, config("dataset.size=[160,128]"))
    assert told.startswith("4 of 6 images are shrunk") and "1000 x 300 to dataset.size=[160,128]" in told
    assert remarks(dataset, config("dataset.size=[250,128]")) == []
