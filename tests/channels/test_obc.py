"""Optimal Brain Compression of channel groups, on ONNX graphs whose answer is known."""

from itertools import pairwise

import numpy as np
import pytest
from onnx import ModelProto, helper

from segslim.channels import obc
from segslim.channels.graph import ChannelGroup, Member
from segslim.channels.obc import obc_importance
from segslim.channels.walk import CONSUMES, PRODUCES
from segslim.gram import layers_of
from tests.channels.test_reconstruction import Weights, model_of, photos

TENSORS = {name: name for name in ("first.w", "second.w", "other.w")}


def group(size: int = 8, readers: tuple[str, ...] = ("second.w",)) -> ChannelGroup:
    index = np.arange(size)
    members = (Member("first.w", 0, PRODUCES, index), *(Member(name, 1, CONSUMES, index) for name in readers))
    return ChannelGroup("first", size, members, True, index)


def network(weights: Weights, kernel: int = 1) -> ModelProto:
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "first.w"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Conv", ["r", "second.w", "second.b"], ["y"], pads=pads),
    ]
    return model_of(nodes, weights, "y")


def weights(kernel: int = 1, seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)
    second = random.normal(size=(4, 8, kernel, kernel))
    return {"first.w": random.normal(size=(8, 3, 3, 3)), "second.w": second, "second.b": random.normal(size=4)}


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_channel_that_another_replaces_goes_first_however_large_it_is(kernel: int) -> None:
    """Channel 5 is three times channel 2: of the two, one goes at no cost, and the other is then worth much."""
    given = weights(kernel)
    given["first.w"][5] = 3 * given["first.w"][2]
    scores = obc_importance([group()], TENSORS, network(given, kernel), photos(), ridge=1e-6)["first"]
    first, *others = np.argsort(scores)
    assert first in (2, 5)
    assert scores[first] < 0.01 * scores[others].min()


@pytest.mark.parametrize("kernel", [1, 3])
def test_removing_channels_refits_the_others_as_least_squares_does(kernel: int) -> None:
    """After some removals the weights are those of a regression on the remaining inputs alone."""
    model, random = network(weights(kernel), kernel), np.random.default_rng(1)
    columns = np.repeat(np.arange(8), kernel**2)
    matrix = layers_of(model)["second.w"].matrix(weights(kernel)["second.w"])[0]
    samples = random.normal(size=(500, len(columns))) @ random.normal(size=(len(columns), len(columns)))
    second = samples.T @ samples / len(samples)
    reader = obc._Reader(matrix, second, 1.0, columns, 8, 1e-9)
    cost = reader.costs(np.arange(8))[3]
    reader.remove(np.array([3]))
    kept = columns != 3
    solution = np.linalg.lstsq(samples[:, kept], samples @ matrix.T, rcond=None)[0].T
    np.testing.assert_allclose(reader.refitted()[:, kept], solution, atol=1e-4)
    assert not reader.refitted()[:, ~kept].any()
    lost = np.square(samples @ matrix.T - samples[:, kept] @ solution.T).mean(0).sum()
    assert cost == pytest.approx(lost, rel=1e-3)
    reader.compact(np.array([0, 1, 2, 4, 5, 6, 7]))
    np.testing.assert_allclose(reader.refitted()[:, kept], solution, atol=1e-4)
    reader.remove(np.array([6, 0]))
    kept = ~np.isin(columns, [3, 6, 0])
    solution = np.linalg.lstsq(samples[:, kept], samples @ matrix.T, rcond=None)[0].T
    np.testing.assert_allclose(reader.refitted()[:, kept], solution, atol=1e-4)


def test_layers_too_large_for_one_matrix_are_ranked_by_their_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    given = weights(3)
    given["first.w"][5] = 3 * given["first.w"][2]
    given["second.w"][:, 7] *= 1e-3
    monkeypatch.setattr(obc, "LARGEST_GRAM", 8)
    scores = obc_importance([group()], TENSORS, network(given, 3), photos(), ridge=1e-6)["first"]
    assert set(np.argsort(scores)[:2]) in ({7, 2}, {7, 5})


def test_what_the_output_does_not_depend_on_scores_nothing_and_all_readers_count() -> None:
    """Two readers: the channels that matter to either one are kept."""
    given = weights()
    given["other.w"] = given["second.w"][:, :, :, :].copy()
    given["second.w"][:, :4] = 0
    given["other.w"][:, 2:] = 0
    nodes = [
        helper.make_node("Conv", ["x", "first.w"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Conv", ["r", "second.w", "second.b"], ["s"]),
        helper.make_node("Conv", ["r", "other.w"], ["o"]),
        helper.make_node("Add", ["s", "o"], ["y"]),
    ]
    model = model_of(nodes, given, "y")
    scores = obc_importance([group(readers=("second.w", "other.w"))], TENSORS, model, photos())["first"]
    assert set(np.argsort(scores)[:2]) == {2, 3}
    assert scores[[2, 3]].max() < 1e-6 < 1e-3 < scores[[0, 1, 4, 5, 6, 7]].min()


def test_the_scores_of_the_first_channels_sum_to_the_change_that_was_measured() -> None:
    changes = {2: 0.1, 4: 0.5, 6: 0.4}  # the last one by chance below the one before
    scores = obc._scaled(np.array([1.0, 2, 3, 4, 5, 6, 7, 8]), changes)
    assert scores[:2].sum() == pytest.approx(0.1)
    assert scores[:4].sum() == pytest.approx(0.5)
    assert all(before <= after for before, after in pairwise(scores))


def test_groups_that_no_layer_of_the_graph_reads_are_absent() -> None:
    assert obc_importance([group(readers=("gone.w",))], TENSORS, network(weights()), photos()) == {}


def test_the_same_images_give_the_same_scores_bit_for_bit() -> None:
    first, second = (obc_importance([group()], TENSORS, network(weights(3), 3), photos())["first"] for _ in range(2))
    assert np.array_equal(first, second)
