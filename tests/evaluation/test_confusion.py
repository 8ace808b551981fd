"""The scores equal those of independent computations, and wrong class ids are named."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score, jaccard_score

from segslim.errors import UserError
from segslim.evaluation import ConfusionMatrix, mean_iou

CLASSES, IGNORE = 4, 255


@st.composite
def predictions_and_labels(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    highest = draw(st.integers(0, CLASSES - 1))
    prediction = draw(arrays(np.int64, shape, elements=st.integers(0, highest)))
    label = draw(arrays(np.uint8, shape, elements=st.sampled_from([*range(CLASSES), IGNORE])))
    return prediction, label


@given(predictions_and_labels())
def test_scores_equal_sklearns(case):
    prediction, label = case
    counted = label != IGNORE
    if not counted.any():
        return
    confusion = ConfusionMatrix(CLASSES, IGNORE)
    confusion.update(prediction, label)
    scores = confusion.scores()
    y, p = label[counted], prediction[counted]
    present = np.union1d(y, p)
    assert np.array_equal(confusion.counts, confusion_matrix(y, p, labels=range(CLASSES)))
    iou = jaccard_score(y, p, labels=present, average=None)
    assert scores.miou == pytest.approx(iou.mean())
    assert [scores.class_iou[index] for index in present] == pytest.approx(iou)
    assert all(scores.class_iou[index] is None for index in set(range(CLASSES)) - set(present.tolist()))
    assert scores.accuracy == pytest.approx(accuracy_score(y, p))
    assert scores.dice == pytest.approx(f1_score(y, p, labels=present, average="macro"))
    if len(present) > 1:
        assert scores.kappa == pytest.approx(cohen_kappa_score(y, p))


@given(predictions_and_labels())
def test_counts_are_those_of_a_loop_over_the_pixels(case):
    prediction, label = case
    counts = np.zeros((CLASSES, CLASSES), int)
    for y, p in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if y != IGNORE:
            counts[y, p] += 1
    confusion = ConfusionMatrix(CLASSES, IGNORE)
    confusion.update(prediction, label)
    assert np.array_equal(confusion.counts, counts)


@given(st.lists(predictions_and_labels(), min_size=1, max_size=4))
def test_images_one_by_one_count_as_all_at_once(cases):
    one_by_one, at_once = ConfusionMatrix(CLASSES, IGNORE), ConfusionMatrix(CLASSES, IGNORE)
    for prediction, label in cases:
        one_by_one.update(prediction, label)
    at_once.update(*(np.concatenate([array.ravel() for array in part]) for part in zip(*cases, strict=True)))
    assert np.array_equal(one_by_one.counts, at_once.counts)


@given(arrays(np.int64, st.integers(1, 6).map(lambda n: (n, n)), elements=st.integers(0, 10**9)))
def test_scores_of_a_confusion_matrix_are_those_of_fractions(counts):
    """Without numpy: whole numbers, and fractions of them, in the words of the definitions."""
    classes = range(len(counts))
    cells = [[int(value) for value in row] for row in counts]
    total = sum(map(sum, cells))
    if total == 0:
        return
    confusion = ConfusionMatrix(len(counts))
    confusion.counts[:] = counts
    scores = confusion.scores()
    union = [sum(cells[c]) + sum(row[c] for row in cells) - cells[c][c] for c in classes]
    iou = [Fraction(cells[c][c], union[c]) if union[c] else None for c in classes]
    known = [value for value in iou if value is not None]
    assert scores.miou == pytest.approx(float(sum(known) / len(known)))
    assert [value is None for value in scores.class_iou] == [value is None for value in iou]
    assert scores.accuracy == pytest.approx(float(Fraction(sum(cells[c][c] for c in classes), total)))
    dice = [2 * value / (1 + value) for value in known]
    assert scores.dice == pytest.approx(float(sum(dice) / len(dice)))


def test_a_perfect_prediction_scores_one_in_everything():
    label = np.array([[0, 1], [2, 3]])
    confusion = ConfusionMatrix(CLASSES, IGNORE)
    confusion.update(label, label)
    scores = confusion.scores()
    assert (scores.miou, scores.accuracy, scores.kappa, scores.dice) == (1, 1, 1, 1)


def test_one_class_only_and_agreement_is_a_kappa_of_one():
    confusion = ConfusionMatrix(2)
    confusion.update(np.zeros((3, 3), int), np.zeros((3, 3), np.uint8))
    assert confusion.scores().kappa == 1
    assert confusion.scores().class_iou == (1.0, None)


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


def test_a_label_out_of_range_is_named():
    with pytest.raises(UserError, match="label holds class 7, but there are classes 0 to 3"):
        ConfusionMatrix(CLASSES).update(np.zeros((1, 2), int), np.array([[0, 7]], np.uint8))


def test_shapes_that_differ_are_refused():
    with pytest.raises(UserError, match=r"\(2, 2\).*\(2, 3\)"):
        ConfusionMatrix(CLASSES).update(np.zeros((2, 2), int), np.zeros((2, 3), np.uint8))


def test_scores_of_nothing_are_refused():
    confusion = ConfusionMatrix(CLASSES)
    confusion.update(np.zeros((2, 2), int), np.full((2, 2), 255, np.uint8))
    with pytest.raises(UserError, match="no labelled pixel"):
        confusion.scores()


def test_mean_iou_of_many_matrices_is_that_of_each():
    counts = np.random.default_rng(0).integers(0, 3, (5, 2, CLASSES, CLASSES))
    counts[0, :, 3], counts[0, :, :, 3] = 0, 0  # an absent class
    for at in np.ndindex(5, 2):
        confusion = ConfusionMatrix(CLASSES)
        confusion.counts += counts[at]
        assert mean_iou(counts)[at] == confusion.scores().miou
        assert confusion.scores().miou == pytest.approx(
            np.mean([x for x in confusion.scores().class_iou if x is not None])
        )
    assert np.isnan(mean_iou(np.zeros((CLASSES, CLASSES), int)))
