"""Rendered fundus photographs are reproducible and not solvable by colour."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from segslim.data import SyntheticFundus
from segslim.data.checks import check_pairs
from segslim.data.fundus import render_fundus
from segslim.errors import UserError

SMALL = SyntheticFundus(size=(80, 64), train_images=3, val_images=2)


@pytest.fixture(scope="module")
def validation():
    """Images (N,H,W,3) and discs (N,H,W) of the default validation split."""
    default = SyntheticFundus()
    rendered = [render_fundus((default.seed, 1, index), *default.size) for index in range(default.val_images)]
    return np.stack([image for image, _ in rendered]), np.stack([label for _, label in rendered]) == 1


def colour_measures(images):
    """What a threshold could be set on: channels, brightness, differences and ratios."""
    red, green, blue = np.moveaxis(images.astype(np.float64), 3, 0)
    most, least = images.max(3).astype(np.float64), images.min(3).astype(np.float64)
    return {
        "red": red,
        "green": green,
        "blue": blue,
        "brightness": red + green + blue,
        "luma": 0.299 * red + 0.587 * green + 0.114 * blue,
        "maximum": most,
        "minimum": least,
        "saturation": (most - least) / (most + 8),
        "red - green": red - green,
        "red - blue": red - blue,
        "green - blue": green - blue,
        "green / red": green / (red + 8),
        "blue / red": blue / (red + 8),
        "blue / green": blue / (green + 8),
        "green * blue": green * blue,
    }


def fitted_measures(images, discs):
    """Least squares on colours, to first and second order: the best that a blend of them could do, and then some."""
    colours = images.reshape(-1, 3) / 255.0
    in_field = colours.max(1) > 0.15
    first = np.c_[np.ones(len(colours)), colours, colours[:, [1, 2]] / (colours[:, [0]] + 0.03)]
    second = np.concatenate([first[:, [i]] * first[:, i:] for i in range(first.shape[1])], 1)
    for name, terms in (("first order", first), ("second order", second)):
        used = terms[in_field]
        weights = np.linalg.lstsq(used.T @ used, used.T @ discs.ravel()[in_field], rcond=None)[0]
        yield name, np.where(in_field, terms @ weights, -1e9)


def best_threshold_miou(measure, discs):
    """mIoU of the best of 1000 thresholds, disc above or below it."""
    edges = np.unique(np.quantile(measure.ravel()[:: 1 + measure.size // 50_000], np.linspace(0, 1, 1001)))
    bins = np.searchsorted(edges, measure.ravel(), side="right")
    disc = np.bincount(bins[discs.ravel()], minlength=len(edges) + 1)
    rest = np.bincount(bins[~discs.ravel()], minlength=len(edges) + 1)

    def miou(hits, false_alarms):
        missed = disc.sum() - hits
        iou = hits / (disc.sum() + false_alarms)
        iou_rest = (rest.sum() - false_alarms) / (rest.sum() + missed)
        return ((iou + iou_rest) / 2).max()

    below, rest_below = np.cumsum(disc), np.cumsum(rest)
    return max(miou(below, rest_below), miou(disc.sum() - below, rest.sum() - rest_below))


def test_no_threshold_on_colour_finds_the_disc(validation):
    images, discs = validation
    found = {name: best_threshold_miou(measure, discs) for name, measure in colour_measures(images).items()}
    found |= {name: best_threshold_miou(measure, discs) for name, measure in fitted_measures(images, discs)}
    assert max(found.values()) < 0.65, found
    # The disc can be steps apart by colour to some degree, so the search above looks where it should.
    assert max(found.values()) > 0.55, found


def test_the_disc_takes_a_fiftieth_to_a_sixteenth_of_the_image_on_either_side(validation):
    _, discs = validation
    shares = discs.mean((1, 2))
    assert 0.02 < shares.min() < shares.max() < 0.0625
    rows, columns = np.array([np.argwhere(disc).mean(0) for disc in discs]).T
    assert 0.25 < (columns < 80).mean() < 0.75
    assert np.abs(columns - 80).min() > 15 and rows.std() > 5


def test_the_same_seed_renders_the_same_image_and_another_seed_another():
    first, again, other = (render_fundus((0, 0, index), 96, 96) for index in (1, 1, 2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_prepared_files_are_a_sound_data_set(tmp_path):
    steps = []
    SMALL.prepare(tmp_path, lambda done, total: steps.append((done, total)))
    assert steps == [(done, 5) for done in range(1, 6)]
    train, val = SMALL.pairs(tmp_path, "train"), SMALL.pairs(tmp_path, "val")
    summary = check_pairs(train + val, num_classes=2)
    assert (len(train), len(val)) == (3, 2)
    assert [(size.width, size.height) for size in summary.sizes] == [(80, 64)]
    assert 0.01 < summary.class_pixels[1] / sum(summary.class_pixels) < 0.07
    stored = cv2.cvtColor(cv2.imread(str(val[1].image)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(stored, render_fundus((0, 1, 1), 80, 64)[0])


def test_more_images_keep_those_that_are_there(tmp_path):
    SMALL.prepare(tmp_path / "few")
    replace(SMALL, train_images=5).prepare(tmp_path / "many")
    name = Path("images/train/00002.png")
    assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_the_identity_follows_every_parameter():
    others = [replace(SMALL, **{key: value}) for key, value in (("seed", 1), ("train_images", 4), ("val_images", 4))]
    others += [replace(SMALL, size=(64, 80)), SMALL]
    assert len({dataset.identity() for dataset in others}) == 5
    assert SyntheticFundus(size=[80, 64]).identity() == SyntheticFundus(size=(80, 64)).identity()


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", (160,)), ("size", (160, 63)), ("source.seed", -1), ("source.train_images", 0), ("source.val_images", 0)],
)
def test_impossible_parameters_are_named(key, value):
    with pytest.raises(UserError, match=rf"dataset\.{key}="):
        SyntheticFundus(**{key.removeprefix("source."): value})
