import numpy as np
import pytest

from segslim.stages.preview import EVENLY, MOST, _accuracy, _choose, _mask


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_images_are_shown_once_the_same_in_every_run_and_then_those_that_differ_most(count):
    changed = np.random.default_rng(0).permutation(count).astype(float).tolist()
    chosen = _choose(changed)
    assert len(chosen) == min(count, EVENLY + MOST)
    evenly = [at for at, why in chosen.items() if why == "evenly"]
    assert evenly == [at for at, why in _choose([0.0] * count).items() if why == "evenly"]
    most = [changed[at] for at, why in chosen.items() if why == "most"]
    others = sorted((value for at, value in enumerate(changed) if at not in evenly), reverse=True)
    assert most == others[:MOST]


def test_a_mask_holds_the_class_ids_in_their_colours():
    mask = _mask(np.array([[0, 1], [255, 1]]), [(1, 2, 3), (4, 5, 6)])
    assert np.asarray(mask).tolist() == [[0, 1], [255, 1]]
    assert np.asarray(mask.convert("RGB"))[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert np.asarray(mask.convert("RGB"))[1, 0].tolist() == [0, 0, 0]


def test_an_image_without_a_label_has_no_accuracy():
    assert _accuracy(np.zeros((2, 2)), np.full((2, 2), 255), 255) is None
    assert _accuracy(np.zeros((1, 2)), np.array([[0, 1]]), 255) == 0.5
