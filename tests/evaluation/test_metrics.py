"""Metrics equal those of independent computations, at the labels' size; wrong class ids are named."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score, jaccard_score

from segslim.errors import UserError
from segslim.evaluation import ConfusionMatrix, LabelCounts, evaluate, mean_iou, resize_nearest

CLASSES, IGNORE = 4, 255
sides = st.integers(1, 50)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def predictions_and_labels(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    highest = draw(st.integers(0, CLASSES - 1))
    prediction = draw(arrays(np.int64, shape, elements=st.integers(0, highest)))
    label = draw(arrays(np.uint8, shape, elements=st.sampled_from([*range(CLASSES), IGNORE])))
    return prediction, label


@given(predictions_and_labels())
def test_metrics_equal_sklearns(case):
    prediction, label = case
    counted = label != IGNORE
    if not counted.any():
        return
    confusion = ConfusionMatrix(CLASSES, IGNORE)
    confusion.update(prediction, label)
    metrics = confusion.metrics()
    y, p = label[counted], prediction[counted]
    present = np.unique(y)
    assert np.array_equal(confusion.counts, confusion_matrix(y, p, labels=range(CLASSES)))
    iou = jaccard_score(y, p, labels=present, average=None)
    assert metrics.miou == pytest.approx(iou.mean())
    assert [metrics.class_iou[index] for index in present] == pytest.approx(iou)
    assert all(metrics.class_iou[index] is None for index in set(range(CLASSES)) - set(present.tolist()))
    assert metrics.accuracy == pytest.approx(accuracy_score(y, p))
    assert metrics.dice == pytest.approx(f1_score(y, p, labels=present, average="macro"))
    if len(np.union1d(y, p)) > 1:
        assert metrics.kappa == pytest.approx(cohen_kappa_score(y, p))


@given(st.lists(predictions_and_labels(), min_size=1, max_size=4))
def test_images_one_by_one_count_as_all_at_once(cases):
    one_by_one, at_once = ConfusionMatrix(CLASSES, IGNORE), ConfusionMatrix(CLASSES, IGNORE)
    for prediction, label in cases:
        one_by_one.update(prediction, label)
    at_once.update(*(np.concatenate([array.ravel() for array in part]) for part in zip(*cases, strict=True)))
    assert np.array_equal(one_by_one.counts, at_once.counts)


def test_a_stray_pixel_of_a_class_without_labels_costs_one_pixel_and_not_a_class():
    label = np.zeros((10, 10), np.uint8)
    label[5:] = 1
    better, worse = ConfusionMatrix(3), ConfusionMatrix(3)
    prediction = label.astype(int)
    prediction[0, 0] = 2
    better.update(prediction, label)
    prediction[0] = 1
    worse.update(prediction, label)
    assert better.metrics().miou == pytest.approx((0.98 + 1) / 2) and worse.metrics().miou < 0.95
    assert better.metrics().class_iou[2] is None


def test_one_class_only_and_agreement_is_a_kappa_of_one():
    confusion = ConfusionMatrix(2)
    confusion.update(np.zeros((3, 3), int), np.zeros((3, 3), np.uint8))
    assert confusion.metrics().kappa == 1
    assert confusion.metrics().class_iou == (1.0, None)


@pytest.mark.parametrize("ignore_index", [0, 1, 255, -1])
def test_ignored_pixels_do_not_count_whatever_their_number(ignore_index):
    label = np.full((2, 2), ignore_index, np.int64)
    label[0] = 2
    confusion = ConfusionMatrix(3, ignore_index)
    confusion.update(np.array([[2, 0], [1, 1]]), label)
    assert confusion.counts.sum() == 2
    assert confusion.counts[2].tolist() == [1, 0, 1]


@pytest.mark.parametrize(("stranger", "dtype"), [(4, np.int64), (-1, np.int32), (200, np.uint8)])
def test_a_prediction_out_of_range_is_named_even_where_the_label_is_ignored(stranger, dtype):
    prediction = np.array([[0, stranger]], dtype)
    with pytest.raises(UserError, match=rf"predicts class {stranger}, but there are classes 0 to 3"):
        ConfusionMatrix(CLASSES).update(prediction, np.array([[0, 255]], np.uint8))


def test_mean_iou_of_many_matrices_is_that_of_each():
    counts = np.random.default_rng(0).integers(0, 3, (5, 2, CLASSES, CLASSES))
    counts[0, :, 3], counts[0, :, :, 3] = 0, 0  # an absent class
    for at in np.ndindex(5, 2):
        confusion = ConfusionMatrix(CLASSES)
        confusion.counts += counts[at]
        assert mean_iou(counts)[at] == confusion.metrics().miou
        assert confusion.metrics().miou == pytest.approx(
            np.mean([x for x in confusion.metrics().class_iou if x is not None])
        )
    assert np.isnan(mean_iou(np.zeros((CLASSES, CLASSES), int)))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.array([[0, 7]], np.uint8), "label holds class 7, but there are classes 0 to 3"),
        (np.zeros((2, 3), np.uint8), r"\(1, 2\).*\(2, 3\)"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(label, message):
    with pytest.raises(UserError, match=message):
        ConfusionMatrix(CLASSES).update(np.zeros((1, 2), int), label)


def brightness_classes(images):
    return (images[:, 0] > 0.5).astype(np.int64)


@given(sides, sides, sides, sides)
def test_each_pixel_takes_the_source_pixel_that_holds_its_centre(height, width, to_height, to_width):
    ids = np.arange(height * width).reshape(height, width)
    rows = [int((i + Fraction(1, 2)) * height / to_height) for i in range(to_height)]
    columns = [int((j + Fraction(1, 2)) * width / to_width) for j in range(to_width)]
    assert np.array_equal(resize_nearest(ids, to_height, to_width), ids[rows][:, columns])


def test_a_batch_may_mix_label_sizes_and_every_pixel_of_a_label_counts_once():
    images = np.zeros((2, 3, 4, 4), np.float32)
    images[:, :, :2] = 1
    upper_half = [np.zeros((8, 8), np.uint8), np.zeros((6, 2), np.uint8)]
    for label in upper_half:
        label[: len(label) // 2] = 1
    done = []
    metrics = evaluate(brightness_classes, [(images, upper_half)], 2, progress=done.append)
    assert metrics.miou == 1
    assert done == [2]
    upper_half[0][0, :4] = 0
    assert evaluate(brightness_classes, [(images, upper_half)], 2).accuracy == pytest.approx(1 - 4 / (64 + 12))


@pytest.mark.parametrize("output", [np.zeros((1, 2, 4, 4)), np.zeros((1, 4, 4), np.float32), np.zeros((2, 4, 4), int)])
def test_an_output_that_is_not_class_ids_is_refused(output):
    batch = (np.zeros((1, 3, 4, 4), np.float32), [np.zeros((4, 4), np.uint8)])
    with pytest.raises(UserError, match=r"\(1, H, W\).*export.output=argmax"):
        evaluate(lambda images: output, [batch], 2)


@pytest.mark.parametrize("batches", [[], [(np.zeros((1, 3, 4, 4), np.float32), [np.full((4, 4), IGNORE, np.uint8)])]])
def test_nothing_to_evaluate_on_is_refused(batches):
    with pytest.raises(UserError, match="no labelled pixel"):
        evaluate(brightness_classes, batches, 2)


@given(st.data(), shapes, shapes)
def test_label_counts_count_as_the_resized_prediction_does(data, of_prediction, of_label):
    prediction = data.draw(arrays(np.int32, of_prediction, elements=st.integers(0, CLASSES - 1)))
    label = data.draw(arrays(np.uint8, of_label, elements=st.sampled_from([*range(CLASSES), IGNORE])))
    plain = ConfusionMatrix(CLASSES, IGNORE)
    plain.update(resize_nearest(prediction, *of_label), label)

    counts = LabelCounts.from_label(label, of_prediction, CLASSES, IGNORE).confusion(prediction)

    assert np.array_equal(counts, plain.counts) and counts.dtype == plain.counts.dtype


def test_label_counts_refuse_wrong_classes_and_shapes():
    label = np.array([[0, 3], [1, 255]], np.uint8)
    with pytest.raises(UserError, match="a label holds class 3, but there are classes 0 to 2"):
        LabelCounts.from_label(label, (1, 1), 3)
    prepared = LabelCounts.from_label(label, (1, 2), 4)
    with pytest.raises(UserError, match="the network predicts class 4, but there are classes 0 to 3"):
        prepared.confusion(np.array([[0, 4]]))
    with pytest.raises(UserError, match=r"\(2, 1\).*\(1, 2\)"):
        prepared.confusion(np.array([[0], [1]]))
