"""Comparing at the prediction's size counts the same pixels as comparing at the label's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segslim.errors import UserError
from segslim.evaluation import ConfusionMatrix, LabelCounts, resize_nearest

CLASSES, IGNORE = 4, 255
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.data(), shapes, shapes)
def test_counts_are_those_of_the_resized_prediction_smaller_or_larger(data, of_prediction, of_label):
    prediction = data.draw(arrays(np.int32, of_prediction, elements=st.integers(0, CLASSES - 1)))
    label = data.draw(arrays(np.uint8, of_label, elements=st.sampled_from([*range(CLASSES), IGNORE])))
    plain = ConfusionMatrix(CLASSES, IGNORE)
    plain.update(resize_nearest(prediction, *of_label), label)

    counts = LabelCounts.of(label, of_prediction, CLASSES, IGNORE).confusion(prediction)

    assert np.array_equal(counts, plain.counts) and counts.dtype == plain.counts.dtype


def test_strange_classes_and_shapes_are_refused():
    label = np.array([[0, 3], [1, 255]], np.uint8)
    with pytest.raises(UserError, match="a label holds class 3, but there are classes 0 to 2"):
        LabelCounts.of(label, (1, 1), 3)
    prepared = LabelCounts.of(label, (1, 2), 4)
    with pytest.raises(UserError, match="the network predicts class 4, but there are classes 0 to 3"):
        prepared.confusion(np.array([[0, 4]]))
    with pytest.raises(UserError, match=r"shape \(2, 1\) came where \(1, 2\) was awaited"):
        prepared.confusion(np.array([[0], [1]]))
