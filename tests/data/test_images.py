"""Images and labels of every kind are read in one way everywhere, or refused by name."""

import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segslim.data.images import PLAIN, ImageInfo, Reading, inspect_image, list_images, read_image, read_label
from segslim.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
GREY = NOISE[..., 0]
GREY_RGB = np.repeat(GREY[..., np.newaxis], 3, axis=2)
DEEP = (NOISE.astype(np.uint16) << 8) + 37

KINDS = {  # what is written, what is read, and a word of the warning
    "rgb.png": (NOISE, NOISE, None),
    "rgb.bmp": (NOISE, NOISE, None),
    "rgb.tif": (NOISE, NOISE, None),
    "grey.png": (GREY, GREY_RGB, "grey"),
    "alpha.png": (np.dstack([NOISE, GREY]), NOISE, "alpha"),
    "grey of 16 bits.png": (DEEP[..., 0], GREY_RGB, "16 bits"),
    "rgb of 16 bits.png": (DEEP, NOISE, "16 bits"),
}


def encoded(array, suffix=".png"):
    """The file's bytes, of RGB or grey."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(array.shape[-1])
    return cv2.imencode(suffix, array[..., order] if order else array)[1].tobytes()


def png_header(width, height):
    """A PNG of any size, with next to nothing behind its header."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_three_channels_of_eight_bits(tmp_path, name):
    stored, expected, changed = KINDS[name]
    file = tmp_path / name
    file.write_bytes(encoded(stored, file.suffix))
    assert np.array_equal(read_image(file), expected)
    info = inspect_image(file)
    assert info.size == (40, 30)
    assert (changed is None and info.conversion is None) or changed in info.conversion


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_have_the_size_of_the_image(tmp_path, mode):
    file = tmp_path / ("any.jpg" if mode == "CMYK" else "any.png")
    Image.fromarray(NOISE).convert(mode).save(file)
    assert read_image(file).shape == NOISE.shape


def test_an_image_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 30, 3)
    assert inspect_image(tmp_path / "turned.jpg").size == (30, 40)


def test_an_orientation_that_exif_does_not_know_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(NOISE).save(tmp_path / "photo.jpg", exif=exif)
    assert inspect_image(tmp_path / "photo.jpg") == ImageInfo((40, 30), None)
    assert read_image(tmp_path / "photo.jpg").shape == (30, 40, 3)


def test_the_size_of_a_jpeg_is_the_one_that_is_read(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(np.tile(NOISE, (20, 20, 1)), ".jpg"))
    image = read_image(tmp_path / "photo.jpg")
    assert inspect_image(tmp_path / "photo.jpg").size == image.shape[1::-1] == (800, 600)


BAD = {
    "truncated.png": (encoded(NOISE)[:-40], "cannot be read"),
    "truncated.jpg": (encoded(NOISE, ".jpg")[:-150], "cannot be read"),
    "empty.png": (b"", "no known image format"),
    "text.jpg": (b"no image", "no known image format"),
    "start.jpg": (b"\xff\xd8\xff", "cannot be read"),
    "12,000 x 12,000.png": (png_header(12_000, 12_000), "over 100 million pixels"),
    "20,000 x 20,000.png": (png_header(20_000, 20_000), "over 100 million pixels"),  # refused by PIL itself
    "missing.png": (None, "does not exist"),
}


@pytest.mark.parametrize("read", [inspect_image, read_image, read_label])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_in_one_line(tmp_path, name, read):
    content, words = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read(tmp_path / name, where="list.txt:7")
    assert str(error.value).startswith("list.txt:7: ") and str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_opencv_alone_would_read_a_truncated_jpeg(tmp_path):
    (tmp_path / "truncated.jpg").write_bytes(BAD["truncated.jpg"][0])
    assert cv2.imread(str(tmp_path / "truncated.jpg")).shape == NOISE.shape


BANDS = np.random.default_rng(1).integers(0, 256, (30, 40, 6), np.uint8)


@pytest.mark.parametrize("layout", ["bands last", "bands first", "array", "array, bands first"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_bands_are_read_as_they_are_kept(tmp_path, layout, kind):
    stored, white = {"uint8": (BANDS, None), "uint16": (BANDS * np.uint16(257), None), "float32": (BANDS / 255, 1.0)}[
        np.dtype(kind).name
    ]
    stored = stored.astype(kind)
    first = np.ascontiguousarray(np.moveaxis(stored, -1, 0)) if "first" in layout else stored
    file = tmp_path / ("bands.npy" if "array" in layout else "bands.tif")
    if file.suffix == ".npy":
        np.save(file, first)
    else:
        planes = "separate" if "first" in layout else "contig"
        tifffile.imwrite(file, first, photometric="minisblack", planarconfig=planes)
    reading = Reading(channels=6, max_value=white)
    assert np.allclose(read_image(file, "", reading), BANDS, atol=1e-3)
    assert inspect_image(file, "", reading).size == (40, 30)
    for wrong in (PLAIN, Reading(channels=4)):
        with pytest.raises(UserError, match=r"6 bands or channels, and dataset\.channels=\d: give dataset\.channels=6"):
            inspect_image(file, "", wrong)


def test_a_compression_that_needs_a_further_package_is_told_with_what_to_type(tmp_path):
    file = tmp_path / "lzw.tif"
    tifffile.imwrite(file, BANDS, photometric="minisblack", planarconfig="contig")
    with tifffile.TiffFile(file, mode="r+") as opened:
        opened.pages[0].tags["Compression"].overwrite(5)
    with pytest.raises(UserError, match=r"list\.txt:3: .*LZW, .*`uv pip install imagecodecs`, or save it without"):
        inspect_image(file, "list.txt:3", Reading(channels=6))


@pytest.mark.parametrize("name", ["alpha.png", "alpha.tif"])
def test_four_channels_are_those_of_the_file_in_its_order(tmp_path, name):
    stored = np.dstack([NOISE, GREY])
    (tmp_path / name).write_bytes(encoded(stored, f".{name[-3:]}"))
    assert np.array_equal(read_image(tmp_path / name, "", Reading(channels=4)), stored)


def test_one_channel_is_grey(tmp_path):
    (tmp_path / "grey.png").write_bytes(encoded(GREY))
    grey = Reading(channels=1)
    assert np.array_equal(read_image(tmp_path / "grey.png", "", grey)[..., 0], GREY)
    assert inspect_image(tmp_path / "grey.png", "", grey).conversion is None


TORN = {
    "pickle.npy": np.array([{}], dtype=object),
    "one axis.npy": np.zeros(9, np.uint8),
    "nan.npy": np.full((30, 40, 3), np.nan, np.float32),
}


@pytest.mark.parametrize("name", TORN)
def test_an_array_that_is_no_image_is_refused(tmp_path, name):
    np.save(tmp_path / name, TORN[name], allow_pickle=True)
    with pytest.raises(UserError, match=re.escape(name)) as error:
        read_image(tmp_path / name, "", Reading(max_value=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_channels_of_32_bits_are_refused(tmp_path, kind):
    Image.fromarray(GREY.astype(kind)).save(tmp_path / "heights.tif")
    with pytest.raises(UserError, match=r"heights\.tif .*kind [FI]\b.* 8 or 16 bits"):
        read_image(tmp_path / "heights.tif")


@pytest.mark.parametrize("axis", [0, 2])
def test_a_label_may_be_the_only_band_of_a_raster(tmp_path, axis):
    np.save(tmp_path / "label.npy", np.expand_dims(GREY, axis))
    assert np.array_equal(read_label(tmp_path / "label.npy"), GREY)


def test_labels_are_grey_levels_palette_indices_or_bits(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(ids)
    palette.putpalette([level for value in range(256) for level in (value, 255 - value, 128)])
    for image in (Image.fromarray(ids), palette, Image.fromarray(ids.astype(np.uint16))):
        image.save(tmp_path / "label.png")
        assert np.array_equal(read_label(tmp_path / "label.png"), ids)
    Image.fromarray(ids > 5).save(tmp_path / "label.png")
    bits = read_label(tmp_path / "label.png")
    assert bits.dtype == np.uint8 and np.array_equal(bits, ids > 5)


def test_an_offset_shifts_class_ids_and_ignores_what_falls_below_zero(tmp_path):
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "label.png")
    shifted = read_label(tmp_path / "label.png", offset=-1)
    assert shifted.dtype == np.uint8 and shifted.tolist() == [[255, 0, 254]]
    assert read_label(tmp_path / "label.png", offset=1).tolist() == [[1, 2, 256]]
    mapped = Reading(label_map={255: 3}, ignored=7)
    assert read_label(tmp_path / "label.png", offset=-1, reading=mapped).tolist() == [[7, 0, 3]]


@pytest.mark.parametrize(("stored", "words"), [(NOISE, "3 channels"), (GREY.astype(np.float32), "float32")])
def test_a_label_of_colours_or_fractions_is_refused(tmp_path, stored, words):
    Image.fromarray(stored).save(tmp_path / "label.tif")
    with pytest.raises(UserError, match=rf"label\.tif .*{words}"):
        read_label(tmp_path / "label.tif")


def test_images_are_listed_at_any_depth_without_hidden_and_other_files(tmp_path):
    for name in ("b.png", "deep/a.JPEG", "deep/er/c.webp", "notes.txt", "._3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert listed == ["b.png", "deep/a.JPEG", "deep/er/c.webp"]
