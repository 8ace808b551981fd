"""Predictions are compared at the labels' size, by a nearest neighbour that is exact."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segslim.errors import UserError
from segslim.evaluation import evaluate, resize_nearest

sides = st.integers(1, 50)


def brightness_classes(images):
    return (images[:, 0] > 0.5).astype(np.int64)


@given(sides, sides, sides, sides)
def test_each_pixel_takes_the_source_pixel_that_holds_its_centre(height, width, to_height, to_width):
    ids = np.arange(height * width).reshape(height, width)
    rows = [int((i + Fraction(1, 2)) * height / to_height) for i in range(to_height)]
    columns = [int((j + Fraction(1, 2)) * width / to_width) for j in range(to_width)]
    assert np.array_equal(resize_nearest(ids, to_height, to_width), ids[rows][:, columns])


@given(sides, sides, sides, sides)
def test_resizing_is_opencvs_nearest_exact_except_where_a_centre_falls_between_two_pixels(
    height, width, to_height, to_width
):
    ids = np.random.default_rng(0).integers(0, 255, (height, width)).astype(np.uint8)
    expected = cv2.resize(ids, (to_width, to_height), interpolation=cv2.INTER_NEAREST_EXACT)
    tied_rows = (2 * np.arange(to_height) + 1) * height % (2 * to_height) == 0
    tied_columns = (2 * np.arange(to_width) + 1) * width % (2 * to_width) == 0
    clear = ~(tied_rows[:, None] | tied_columns)
    assert np.array_equal(resize_nearest(ids, to_height, to_width)[clear], expected[clear])


def test_half_pixel_centres_do_not_shift_a_prediction_as_opencvs_plain_nearest_does():
    ids = np.arange(5)[None]
    assert resize_nearest(ids, 1, 3).tolist() == [[0, 2, 4]]
    assert cv2.resize(ids.astype(np.uint8), (3, 1), interpolation=cv2.INTER_NEAREST).tolist() == [[0, 1, 3]]


@given(sides, sides, st.integers(1, 4))
def test_enlarging_by_a_whole_factor_and_back_changes_nothing(height, width, factor):
    ids = np.arange(height * width).reshape(height, width)
    large = resize_nearest(ids, factor * height, factor * width)
    assert np.array_equal(large, np.kron(ids, np.ones((factor, factor), int)))
    assert np.array_equal(resize_nearest(large, height, width), ids)


def test_a_batch_may_mix_label_sizes_and_every_pixel_of_a_label_counts_once():
    images = np.zeros((2, 3, 4, 4), np.float32)
    images[:, :, :2] = 1
    upper_half = [np.zeros((8, 8), np.uint8), np.zeros((6, 2), np.uint8)]
    for label in upper_half:
        label[: len(label) // 2] = 1
    done = []
    scores = evaluate(brightness_classes, [(images, upper_half)], 2, progress=done.append)
    assert scores.miou == 1
    assert done == [2]
    upper_half[0][0, :4] = 0
    assert evaluate(brightness_classes, [(images, upper_half)], 2).accuracy == pytest.approx(1 - 4 / (64 + 12))


@pytest.mark.parametrize("output", [np.zeros((1, 2, 4, 4)), np.zeros((1, 4, 4), np.float32), np.zeros((2, 4, 4), int)])
def test_an_output_that_is_not_class_ids_is_refused(output):
    batch = (np.zeros((1, 3, 4, 4), np.float32), [np.zeros((4, 4), np.uint8)])
    with pytest.raises(UserError, match=r"not class ids \(1, H, W\): export it with export.output=argmax"):
        evaluate(lambda images: output, [batch], 2)


def test_nothing_to_evaluate_on_is_refused():
    with pytest.raises(UserError, match="no labelled pixel"):
        evaluate(brightness_classes, [], 2)
