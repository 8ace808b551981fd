"""Every image of a folder gives one job, and its results can be read back."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine

from segslim.errors import UserError
from segslim.predict.results import Place, Results, jobs_of


def test_a_folder_gives_a_job_an_image_at_any_depth(tmp_path):
    for name in ("a.jpg", "deep/b.png", "deep/er/c.JPEG", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [job.name for job in jobs_of(tmp_path, tmp_path / "out")] == ["a", "deep/b", "deep/er/c"]


def test_images_that_differ_in_the_suffix_alone_keep_their_results_apart(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        (tmp_path / name).touch()
    jobs = jobs_of(tmp_path, tmp_path / "out")
    assert [job.name for job in jobs] == ["a.jpg", "a.png", "b"]


def test_earlier_results_inside_the_folder_are_not_predicted(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "out" / "overlays").mkdir(parents=True)
    (tmp_path / "out" / "overlays" / "a.jpg").touch()
    assert [job.image for job in jobs_of(tmp_path, tmp_path / "out")] == [tmp_path / "a.jpg"]


def test_a_path_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: give an image, a video, or a folder"):
        jobs_of(tmp_path / "nowhere", tmp_path)
    with pytest.raises(UserError, match="holds no image"):
        jobs_of(tmp_path, tmp_path / "out")


def test_a_mask_holds_the_ids_and_shows_the_colours(tmp_path):
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    results = Results(tmp_path, ["masks", "overlays"], [(1, 2, 3), (40, 50, 60), (255, 0, 9)])
    results.write("deep/a", np.full((2, 2, 3), 100, np.uint8), ids)
    with Image.open(tmp_path / "masks" / "deep" / "a.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.array(mask), ids)
        assert np.array(mask.convert("RGB")).tolist() == [[[1, 2, 3], [40, 50, 60]], [[255, 0, 9], [40, 50, 60]]]
    with Image.open(tmp_path / "overlays" / "deep" / "a.jpg") as overlay:
        assert overlay.size == (2, 2)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to .*out.* give another --output"):
        Results(tmp_path / "out", ["masks"], [(0, 0, 0)]).write(
            "a", np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)
        )


def regions(seed=0, size=(40, 30)):
    """Class ids in blots of many shapes, some with holes, some that touch at corners."""
    coarse = np.random.default_rng(seed).integers(0, 3, (size[1] // 5, size[0] // 5), np.uint8)
    ids = coarse.repeat(5, 0).repeat(5, 1)
    ids[7, 9] = ids[0, 0] = 1
    return ids


def written(folder, kinds, ids, place=None, classes=("background", "cat", "狗")):
    results = Results(folder, kinds, [(0, 0, 0), (9, 9, 9), (20, 20, 20)], classes)
    results.write("b", np.zeros((*ids.shape, 3), np.uint8), ids, place)
    results.write("a", np.zeros((*ids.shape, 3), np.uint8), ids[::-1].copy(), place)
    results.close()


def test_regions_in_coco_are_the_mask_again(tmp_path):
    ids = regions()
    written(tmp_path, ["coco"], ids)
    coco = json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in coco["images"]] == ["a", "b"]
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "狗"}]
    again = np.zeros_like(ids)
    for region in (each for each in coco["annotations"] if each["image_id"] == 2):
        counts = region["segmentation"]["counts"]
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(ids.shape[::-1]).T
        rows, columns = np.nonzero(inside)
        assert region["area"] == inside.sum()
        assert region["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        again[inside] = region["category_id"]
    assert np.array_equal(again, ids)


def test_outlines_enclose_the_pixels_of_each_class(tmp_path):
    ids = regions(1)
    written(tmp_path, ["polygons"], ids)
    features = json.loads((tmp_path / "polygons" / "b.geojson").read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["name"] for feature in features} == {"cat", "狗"}
    shapes = [(feature["geometry"], feature["properties"]["class"]) for feature in features]
    assert np.array_equal(rasterize(shapes, ids.shape), ids)


def test_areas_are_pixels_shares_and_square_metres(tmp_path):
    ids = regions(2)
    foot = Place(Affine(10.0, 0, 0, 0, -10.0, 0), CRS.from_epsg(2263))  # in US survey feet
    written(tmp_path, ["areas"], ids, foot)
    rows = list(csv.DictReader((tmp_path / "areas.csv").open(encoding="utf-8")))
    assert [row["image"] for row in rows] == ["a"] * 3 + ["b"] * 3
    for row in rows[3:]:
        pixels = int((ids == int(row["class"])).sum())
        assert int(row["pixels"]) == pixels and float(row["share"]) == pixels / ids.size
        assert float(row["square_metres"]) == pytest.approx(pixels * (10 * 1200 / 3937) ** 2)
