"""Images of every kind are read as in training or named, and the results can be read back."""

import cv2
import numpy as np
import pytest
from PIL import Image

from segslim.errors import UserError
from segslim.predict.images import Job, jobs_of, read_image, write_results

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
GREY = NOISE[..., 0]
DEEP = (GREY.astype(np.uint16) << 8) + 37

KINDS = {
    "rgb.png": (NOISE, NOISE),
    "grey.png": (GREY, np.repeat(GREY[..., np.newaxis], 3, axis=2)),
    "alpha.png": (np.dstack([NOISE, GREY]), NOISE),
    "grey16.png": (DEEP, np.repeat(GREY[..., np.newaxis], 3, axis=2)),
    "rgb.bmp": (NOISE, NOISE),
    "rgb.tif": (NOISE, NOISE),
}


@pytest.mark.parametrize("name", KINDS)
def test_grey_alpha_and_sixteen_bits_become_three_channels_of_eight(tmp_path, name):
    stored, expected = KINDS[name]
    Image.fromarray(stored).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), expected)


def test_colours_of_sixteen_bits_become_eight(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), (NOISE[..., ::-1].astype(np.uint16) << 8) + 37)
    assert np.array_equal(read_image(tmp_path / "deep.png"), NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_have_the_size_of_the_image(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(NOISE).convert(mode).save(tmp_path / f"any.{suffix}")
    assert read_image(tmp_path / f"any.{suffix}").shape == NOISE.shape


def test_an_image_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 30, 3)


def test_it_is_what_training_reads(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "photo.jpg")
    assert np.array_equal(read_image(tmp_path / "photo.jpg"), cv2.imread(str(tmp_path / "photo.jpg"))[..., ::-1])


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_a_file_that_is_cut_off_is_refused_although_opencv_may_fill_it_up(tmp_path, name):
    Image.fromarray(NOISE).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read") as error:
        read_image(tmp_path / "image.jpg")
    assert "\n" not in str(error.value)


def test_channels_of_32_bits_are_named(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "heights.tif")
    with pytest.raises(UserError, match="has pixels of kind F: save it with 8 or 16 bits"):
        read_image(tmp_path / "heights.tif")


def test_a_folder_gives_a_job_an_image_at_any_depth(tmp_path):
    for name in ("a.jpg", "deep/b.png", "deep/er/c.JPEG", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    masks = [job.mask.relative_to(tmp_path / "out").as_posix() for job in jobs_of(tmp_path, tmp_path / "out")]
    assert masks == ["masks/a.png", "masks/deep/b.png", "masks/deep/er/c.png"]


def test_images_that_differ_in_the_suffix_alone_keep_their_results_apart(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        (tmp_path / name).touch()
    jobs = jobs_of(tmp_path, tmp_path / "out")
    assert [job.mask.name for job in jobs] == ["a.jpg.png", "a.png.png", "b.png"]


def test_earlier_results_inside_the_folder_are_not_predicted(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "out" / "overlays").mkdir(parents=True)
    (tmp_path / "out" / "overlays" / "a.jpg").touch()
    assert [job.image for job in jobs_of(tmp_path, tmp_path / "out")] == [tmp_path / "a.jpg"]


def test_a_path_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: give an image or a folder"):
        jobs_of(tmp_path / "nowhere", tmp_path)
    with pytest.raises(UserError, match="holds no image"):
        jobs_of(tmp_path, tmp_path / "out")


def test_a_mask_holds_the_ids_and_shows_the_colours(tmp_path):
    job = Job(tmp_path / "a.jpg", tmp_path / "deep" / "mask.png", tmp_path / "over.jpg")
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    colours = [(1, 2, 3), (40, 50, 60), (255, 0, 9)]
    write_results(job, np.full((2, 2, 3), 100, np.uint8), ids, colours)
    with Image.open(job.mask) as mask:
        assert mask.mode == "P" and np.array_equal(np.array(mask), ids)
        assert np.array(mask.convert("RGB")).tolist() == [[[1, 2, 3], [40, 50, 60]], [[255, 0, 9], [40, 50, 60]]]
    with Image.open(job.overlay) as overlay:
        assert overlay.size == (2, 2)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    job = Job(tmp_path / "a.jpg", tmp_path / "out" / "mask.png", tmp_path / "out" / "over.jpg")
    with pytest.raises(UserError, match=r"cannot write to .*out .*give another --output"):
        write_results(job, np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), [(0, 0, 0)])
