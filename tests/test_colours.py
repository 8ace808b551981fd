"""Colours that are told apart, and class ids drawn in them."""

import itertools

import numpy as np
import pytest

from segslim.colours import background_of, blend, distinct_colours, paint, palette


@pytest.mark.parametrize(("count", "least"), [(2, 200), (11, 90), (21, 60), (150, 15), (256, 10)])
def test_distinct_colours_are_far_apart(count, least):
    colours = np.array(distinct_colours(count))
    assert len(colours) == count
    nearest = min(np.linalg.norm(a.astype(float) - b) for a, b in itertools.combinations(colours, 2))
    assert nearest >= least


def test_more_classes_keep_the_colours_of_the_first():
    assert distinct_colours(30)[:7] == distinct_colours(7)


def test_given_colours_are_kept():
    assert palette(2, [[1, 2, 3], [4, 5, 6]]) == [(1, 2, 3), (4, 5, 6)]
    assert palette(3) == list(distinct_colours(3))


def test_paint_gives_each_class_its_colour_and_the_others_black():
    ids = np.array([[0, 1], [255, 1]], np.uint8)
    assert paint(ids, [(9, 8, 7), (1, 2, 3)]).tolist() == [[[9, 8, 7], [1, 2, 3]], [[0, 0, 0], [1, 2, 3]]]


def test_blend_mixes_and_leaves_pixels_without_a_class():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = blend(image, np.array([[0, 255]], np.uint8), [(200, 0, 100)], share=0.25)
    assert mixed.tolist() == [[[125, 75, 100], [100, 100, 100]]]


def test_the_background_of_an_overlay_stays_as_it_is():
    image = np.full((1, 3, 3), 100, np.uint8)
    mixed = blend(image, np.array([[0, 1, 2]], np.uint8), [(0, 0, 0)] * 3, background=1)
    assert mixed[0, :, 0].tolist() == [50, 100, 50]
    names = {("road", "background"): 0, ("road", "car", "_background_"): 2, ("road", "car", "sky"): None}
    assert all(background_of(classes) == at for classes, at in names.items()) and background_of(None) == 0
