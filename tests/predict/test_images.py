"""Every image of a folder gives one job, and its results can be read back."""

import numpy as np
import pytest
from PIL import Image

from segslim.errors import UserError
from segslim.predict.predictor import Job, jobs_of, write_results


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
