import numpy as np
import pytest

from segslim.channels import ChannelGraph, Sensitivity
from segslim.channels.sensitivity import measure
from tests.channels.small import Chain

GRAPH = ChannelGraph.trace(Chain(), (1, 3, 8, 8))
SCORES = {"first": np.array([3.0, 1, 4, 1.5, 9, 2, 6, 5])}


def miou(removed):
    """Of all images, and then without the first and without the second."""
    loss = 0.01 * sum(SCORES["first"][removed.get("first", [])])
    return np.array([0.9 - loss, 0.9 - 2 * loss, 0.9])


def test_losses_are_those_of_the_least_channels():
    found = measure(GRAPH, SCORES, [0.25, 0.5], miou)
    assert found.baseline == 0.9
    assert found.losses["first"] == pytest.approx({0.25: 0.025, 0.5: 0.075})


def test_ratios_of_the_same_channel_count_are_evaluated_once():
    seen = []
    done = []
    measure(
        GRAPH,
        SCORES,
        [0.01, 0.24, 0.25, 0.26, 1.0],
        lambda removed: seen.append(removed) or miou(removed),
        lambda *n: done.append(n),
    )
    assert [len(removed.get("first", [])) for removed in seen] == [0, 2, 7]  # whole, two channels, all but one
    assert done[-1] == (2, 2)


def test_an_error_is_that_of_leaving_out_one_image_each():
    found = measure(GRAPH, SCORES, [0.25, 0.5], miou)  # losses without an image: twice the loss, and none
    assert found.errors["first"] == pytest.approx({0.25: 0.025, 0.5: 0.075})
    alone = measure(GRAPH, SCORES, [0.25], lambda removed: miou(removed)[:2])
    assert alone.errors == {"first": {0.25: 0.0}}


def test_a_file_gives_back_what_was_measured(tmp_path):
    found = measure(GRAPH, SCORES, [1 / 3, 0.5], miou)
    found.save(tmp_path)
    assert Sensitivity.load(tmp_path) == found
