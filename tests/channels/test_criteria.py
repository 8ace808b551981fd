"""Each criterion against what a hand computes."""

import numpy as np
import pytest

from segslim.channels import ChannelGraph
from segslim.channels.importance import CRITERIA, CriterionInputs
from tests.channels.small import Chain, Custom, Mixer, nn

GRAPH = ChannelGraph.trace(Chain(), (1, 3, 8, 8))
(FIRST,) = GRAPH.prunable_groups
FILTERS = np.arange(1, 9).reshape(8, 1, 1, 1) * np.array([1, -1, 2]).reshape(1, 3, 1, 1)


def scores(criterion, group=FIRST, **evidence):
    return CRITERIA[criterion].score(group, CriterionInputs(**evidence))


def test_l1_norm_is_the_sum_of_absolute_weights_relative_to_the_layers_mean():
    np.testing.assert_allclose(scores("l1_norm", weights={"first.weight": FILTERS}), np.arange(1, 9) / 4.5)


def test_l2_norm_is_the_root_of_the_sum_of_squares_relative_to_the_layers_mean():
    few_large, many_small = [2, 0, 0], [1.1, 1.1, 1.1]
    weights = np.array([few_large, many_small] * 4).reshape(8, 3, 1, 1)
    by_l1, by_l2 = (scores(criterion, weights={"first.weight": weights}) for criterion in ("l1_norm", "l2_norm"))
    assert by_l1[0] < by_l1[1] and by_l2[0] > by_l2[1]
    np.testing.assert_allclose(by_l2[0] / by_l2[1], 2 / np.sqrt(3 * 1.21))
    np.testing.assert_allclose(by_l2.mean(), 1)


def test_fpgm_is_the_distance_to_all_other_filters_so_that_copies_go_before_the_unlike():
    at = np.array([0, 0, 0, 1, 0, 0, 7, -5.0])  # on a line, so that distances are differences
    found = scores("fpgm", weights={"first.weight": (at / np.sqrt(3)).reshape(8, 1, 1, 1).repeat(3, 1)})
    distances = np.abs(at[:, None] - at).sum(1)
    np.testing.assert_allclose(found, distances / distances.mean(), atol=1e-6)
    assert set(np.argsort(found)[:5]) == {0, 1, 2, 4, 5}


def test_bn_scale_is_the_size_of_gamma():
    gamma = np.array([0.5, -2, 0, 1, 3, -4, 0.1, 1])
    weights = {"first.weight": FILTERS, "norm.weight": gamma, "norm._mean": gamma, "depthwise.weight": np.ones(16)}
    np.testing.assert_allclose(scores("bn_scale", weights=weights), np.abs(gamma))


def test_bn_scale_falls_back_to_the_l1_norm_where_nothing_normalizes_a_channel():
    graph = ChannelGraph.trace(Custom(nn.ReLU()), (1, 3, 8, 8))
    weights = {"before.weight": FILTERS}
    by_scale, by_norm = (scores(name, graph.prunable_groups[0], weights=weights) for name in ("bn_scale", "l1_norm"))
    np.testing.assert_array_equal(by_scale, by_norm)


def test_taylor_is_the_squared_sum_of_gradient_times_weight_over_all_that_reads_a_channel():
    last = np.random.default_rng(0).normal(size=(2, 4, 16, 1, 1))  # weights, gradients; two inputs for each channel
    auxiliary = np.random.default_rng(1).normal(size=(2, 4, 8, 1, 1))
    weights, gradients = ({"last.weight": last[i], "auxiliary.weight": auxiliary[i]} for i in (0, 1))
    expected = [
        ((last[0] * last[1])[:, 2 * c : 2 * c + 2].sum() + (auxiliary[0] * auxiliary[1])[:, c].sum()) ** 2
        for c in range(8)
    ]
    np.testing.assert_allclose(scores("taylor", weights=weights, gradients=gradients), expected)


def test_taylor_takes_a_head_that_the_loss_does_not_depend_on_for_worth_nothing():
    last = np.ones((4, 16, 1, 1))
    weights = {"last.weight": last, "auxiliary.weight": np.ones((4, 8, 1, 1))}
    np.testing.assert_allclose(scores("taylor", weights=weights, gradients={"last.weight": last}), 64)


def test_taylor_judges_channels_that_no_layer_reads_by_what_makes_them():
    graph = ChannelGraph.trace(Mixer(), (1, 3, 8, 8))
    (group,) = [group for group in graph.prunable_groups if group.name == "linear"]
    weights, gradients = np.random.default_rng(0).normal(size=(2, 8, 6))
    found = scores("taylor", group, weights={"linear.weight": weights}, gradients={"linear.weight": gradients})
    np.testing.assert_allclose(found, (weights * gradients).sum(0) ** 2)


def test_random_follows_the_seed_and_the_group_alone():
    again, other = scores("random", weights={}, seed=1), scores("random", weights={}, seed=2)
    np.testing.assert_array_equal(scores("random", weights={}, seed=1), again)
    assert (again != other).all() and len(set(again)) == 8


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_gives_each_channel_of_a_joined_group_one_finite_score(criterion, traced):
    case = traced("fast_scnn")
    weights = {name: value.numpy() for name, value in case.build().state_dict().items()}
    for group in case.graph.prunable_groups:
        found = scores(criterion, group, weights=weights, gradients=weights)
        assert found.shape == (group.size,) and np.isfinite(found).all() and (found >= 0).all()
