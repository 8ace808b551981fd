"""Every fault of a data set is named with its line before training, or left out and counted where on_error=skip."""

import json
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from segslim.stages.identities import data_identity
from segslim.stages.shared.pairs import usable_pairs

from segslim.errors import UserError
from segslim.predict.images import read_image
from tests.data.files import write_file_list
from tests.stages.test_data import config, run

NOISE = np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8)
GREY = NOISE[..., 0]


def png_of(width, height):
    """The header of a PNG of any size, with next to nothing behind it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(array, suffix=".png"):
    return cv2.imencode(suffix, array)[1].tobytes()


def label_with(value, dtype=np.uint8):
    label = np.zeros((16, 20), dtype)
    label[3, 4] = value
    return encoded(label)


FAULTS = {
    "image truncated": ("image", encoded(NOISE)[:-40], "cannot read the image"),
    "image truncated as JPEG": ("image", encoded(NOISE, ".jpg")[:-150], "cannot read the image"),
    "image that is none": ("image", b"no picture at all", "no image format that is known"),
    "image of nothing": ("image", b"", "no image format that is known"),
    "image of 1 x 1": ("image", encoded(NOISE[:1, :1]), "is 1 x 1 pixels: no side may be less than 8"),
    "image of 20,000 x 20,000": ("image", png_of(20_000, 20_000), "more than PIL opens pixels, over 100 million"),
    "image of 12,000 x 12,000": ("image", png_of(12_000, 12_000), "is 12000 x 12000 pixels, over 100 million"),
    "label truncated": ("label", encoded(GREY)[:-40], "cannot read the label"),
    "label of RGB": ("label", encoded(NOISE), "has 3 channels: give one channel of class numbers"),
    "label out of range": ("label", label_with(9), "holds the value 9 at row 3, column 4"),
    "label out of range in 16 bits": ("label", label_with(4000, np.uint16), "holds the value 4000 at row 3, column 4"),
    "label of nothing but ignored": ("label", encoded(np.full((16, 20), 255, np.uint8)), "nothing but the ignored 255"),
    "label of another size": ("label", encoded(np.zeros((16, 21), np.uint8)), "is 21 x 16 but its image is 20 x 16"),
    "label of 20,000 x 20,000": ("label", png_of(20_000, 20_000), "over 100 million"),
    "image missing": ("image", None, "names the image"),
    "label missing": ("label", None, "names the label"),
}
LISTS = ["dataset=file_list", "dataset.num_classes=3", "dataset.size=[64,64]"]
LISTS += ["dataset.source.train_list=train.txt", "dataset.source.val_list=val.txt"]


def typed(root, *more):
    return [*LISTS, f"dataset.root={root}", f"store={root / 'store'}", *more]


@pytest.fixture
def root(tmp_path):
    write_file_list(tmp_path / "root", count=5)
    return tmp_path / "root"


def damage(root, kind, content):
    file = root / f"{kind}s" / "1.png"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_line(root, tmp_path, name):
    kind, content, words = FAULTS[name]
    damage(root, kind, content)
    with pytest.raises(UserError) as error:
        data_identity(config(*typed(root)))
        run(tmp_path / "artifact", *typed(root))
    assert re.search(rf"train\.txt:2\b.*{re.escape(words)}", str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FAULTS)
def test_skip_goes_on_without_it_and_counts(root, tmp_path, name):
    kind, content, words = FAULTS[name]
    damage(root, kind, content)
    skipping = typed(root, "dataset.on_error=skip")
    assert data_identity(config(*skipping))["on_error"] == "skip"
    assert run(tmp_path / "artifact", *skipping) == "3 train, 1 val images, 1 skipped"
    ((position, reason),) = json.loads((tmp_path / "artifact" / "skipped.json").read_text())["train"].items()
    assert position == "1" and words in reason
    left = usable_pairs(config(*skipping), tmp_path / "artifact", "train")
    assert [pair.line for pair in left] == [1, 3, 4]


READ_OTHERWISE = {
    "grey": (GREY, "is grey: read as three equal channels"),
    "with alpha": (np.dstack([NOISE, GREY]), "has alpha: it is dropped"),
    "of 16 bits": (NOISE.astype(np.uint16) << 8, "has 16 bits a channel: read as 8"),
    "grey of 16 bits": (GREY.astype(np.uint16) << 8, "has 16 bits a channel: read as 8"),
}


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_an_image_that_is_read_otherwise_than_it_is_stored_is_named_and_used(root, tmp_path, name, caplog):
    stored, words = READ_OTHERWISE[name]
    damage(root, "image", encoded(stored))
    assert run(tmp_path / "artifact", *typed(root)) == "4 train, 1 val images"
    assert re.search(rf"train\.txt:2: the image .*1\.png {words}", caplog.text)


def test_pixels_that_are_no_colours_are_refused(root, tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(root / "images" / "1.tif")
    lines = (root / "train.txt").read_text().replace("images/1.png", "images/1.tif")
    (root / "train.txt").write_text(lines)
    with pytest.raises(UserError, match=r"train\.txt:2: the image .* has pixels of kind F"):
        run(tmp_path / "artifact", *typed(root))


def test_a_repeated_line_is_named_with_the_one_it_repeats(root, tmp_path):
    with (root / "train.txt").open("a") as lines:
        lines.write("images/../images/0.png labels/0.png\n")
    with pytest.raises(UserError, match=r"train\.txt:5: the image .*0\.png is that of line 1: remove one"):
        run(tmp_path / "artifact", *typed(root))
    assert run(tmp_path / "skipping", *typed(root, "dataset.on_error=skip")) == "4 train, 1 val images, 1 skipped"


def test_nothing_left_is_no_data_set(root, tmp_path):
    (root / "images" / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"on_error=skip leaves no val image: .*val\.txt:1: cannot read"):
        run(tmp_path / "artifact", *typed(root, "dataset.on_error=skip"))


@pytest.mark.parametrize("folder", ["with a space", "图像", "a/../b"])
def test_a_path_of_any_name_works(tmp_path, folder):
    (tmp_path / "a").mkdir()
    root = tmp_path / folder
    write_file_list(root, separator="\t")
    text = "".join(f"../{root.name}/images/my {n}.png\tlabels/my {n}.png\n" for n in range(3))
    (root / "train.txt").write_text(text, encoding="utf-8")
    options = [*typed(root), "dataset.source.separator='\t'"]
    options[-3] = f"dataset.root='{root}'"
    options[-2] = f"store='{root}/store'"
    assert run(tmp_path / "artifact", *options) == "3 train, 1 val images"


def test_a_list_in_another_encoding_is_named_with_its_line(root, tmp_path):
    (root / "train.txt").write_bytes(
        (root / "train.txt").read_bytes() + "images/眼底照片.png labels/眼底照片.png\n".encode("gbk")
    )
    with pytest.raises(UserError, match=r"train\.txt:5 is not in UTF-8"):
        run(tmp_path / "artifact", *typed(root))


def test_a_lonely_image_of_two_folders_is_left_out(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / "root" / kind).mkdir(parents=True)
    for name in "abc":
        cv2.imwrite(str(tmp_path / "root" / "images" / f"{name}.png"), NOISE)
        cv2.imwrite(str(tmp_path / "root" / "labels" / f"{name}.png"), GREY % 3)
    (tmp_path / "root" / "labels" / "b.png").unlink()
    options = ["dataset=folder", "dataset.num_classes=3", f"dataset.root={tmp_path / 'root'}"]
    with pytest.raises(UserError, match=r"the image .*b\.png has no label"):
        run(tmp_path / "strict", *options)
    assert run(tmp_path / "artifact", *options, "dataset.on_error=skip").endswith("1 skipped")


def test_predict_reads_no_image_of_too_many_pixels(tmp_path):
    (tmp_path / "large.png").write_bytes(png_of(12_000, 12_000))
    with pytest.raises(UserError, match="12000 x 12000 pixels"):
        read_image(tmp_path / "large.png")
