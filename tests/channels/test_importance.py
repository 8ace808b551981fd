"""Each criterion against what a hand computes, and which groups are scored."""

import numpy as np
import pytest

from segslim.channels import ChannelGraph, Importance, prune_by_ratio, score
from segslim.channels.importance import CRITERIA, CriterionInputs
from segslim.errors import UserError
from tests.channels.small import Chain, Custom, Mixer, Tower, nn

SHAPE = (1, 3, 8, 8)
CHAIN = ChannelGraph.trace(Chain(), SHAPE)
(FIRST,) = CHAIN.prunable_groups
FILTERS = np.arange(1, 9).reshape(8, 1, 1, 1) * np.array([1, -1, 2]).reshape(1, 3, 1, 1)
TOWER = ChannelGraph.trace(Tower(), SHAPE)
WEIGHTS = {name: value.numpy() for name, value in Tower().state_dict().items()}


def scores(criterion, group=FIRST, **inputs):
    return CRITERIA[criterion].score(group, CriterionInputs(**inputs))


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
    by_fpgm = scores("fpgm", weights={"first.weight": (at / np.sqrt(3)).reshape(8, 1, 1, 1).repeat(3, 1)})
    distances = np.abs(at[:, None] - at).sum(1)
    np.testing.assert_allclose(by_fpgm, distances / distances.mean(), atol=1e-6)
    assert set(np.argsort(by_fpgm)[:5]) == {0, 1, 2, 4, 5}


def test_bn_scale_is_the_size_of_gamma():
    gamma = np.array([0.5, -2, 0, 1, 3, -4, 0.1, 1])
    weights = {"first.weight": FILTERS, "norm.weight": gamma, "norm._mean": gamma, "depthwise.weight": np.ones(16)}
    np.testing.assert_allclose(scores("bn_scale", weights=weights), np.abs(gamma))


def test_bn_scale_falls_back_to_the_l1_norm_where_nothing_normalizes_a_channel():
    graph = ChannelGraph.trace(Custom(nn.ReLU()), SHAPE)
    weights = {"before.weight": FILTERS}
    by_scale, by_norm = (scores(name, graph.prunable_groups[0], weights=weights) for name in ("bn_scale", "l1_norm"))
    np.testing.assert_array_equal(by_scale, by_norm)


def test_taylor_is_the_squared_sum_of_gradient_times_weight_over_all_that_reads_a_channel():
    last = np.random.default_rng(0).normal(size=(2, 4, 16, 1, 1))  # weights, gradients; two inputs for each channel
    auxiliary = np.random.default_rng(1).normal(size=(2, 4, 8, 1, 1))
    weights, gradients = ({"last.weight": last[i], "auxiliary.weight": auxiliary[i]} for i in (0, 1))
    of_last, of_auxiliary = (last[0] * last[1]).sum((0, 2, 3)), (auxiliary[0] * auxiliary[1]).sum((0, 2, 3))
    expected = (of_last.reshape(8, 2).sum(1) + of_auxiliary) ** 2
    np.testing.assert_allclose(scores("taylor", weights=weights, gradients=gradients), expected)
    del gradients["auxiliary.weight"]  # a head that the loss does not depend on
    np.testing.assert_allclose(
        scores("taylor", weights=weights, gradients=gradients), of_last.reshape(8, 2).sum(1) ** 2
    )


def test_taylor_judges_channels_that_no_layer_reads_by_what_makes_them():
    graph = ChannelGraph.trace(Mixer(), SHAPE)
    (group,) = [group for group in graph.prunable_groups if group.name == "linear"]
    weights, gradients = np.random.default_rng(0).normal(size=(2, 8, 6))
    by_taylor = scores("taylor", group, weights={"linear.weight": weights}, gradients={"linear.weight": gradients})
    np.testing.assert_allclose(by_taylor, (weights * gradients).sum(0) ** 2)


def test_random_follows_the_seed_and_the_group_alone():
    again, other = scores("random", weights={}, seed=1), scores("random", weights={}, seed=2)
    np.testing.assert_array_equal(scores("random", weights={}, seed=1), again)
    assert (again != other).all() and len(set(again)) == 8


@pytest.mark.parametrize("criterion", [name for name, one in CRITERIA.items() if not one.by_activations])
def test_every_criterion_gives_each_channel_of_a_joined_group_one_finite_score(criterion, traced):
    case = traced("fast_scnn")
    weights = {name: value.numpy() for name, value in case.build().state_dict().items()}
    importance = score(criterion, case.graph, weights, [weights])
    for group in case.graph.prunable_groups:
        channels = importance[group.name]
        assert channels.shape == (group.size,) and np.isfinite(channels).all() and (channels >= 0).all()


def test_scores_by_gradient_are_the_mean_over_the_batches():
    batches = [
        {name: np.random.default_rng(seed).normal(size=w.shape) for name, w in WEIGHTS.items()} for seed in (1, 2)
    ]
    both, one, other = (score("taylor", TOWER, WEIGHTS, iter(given)) for given in (batches, batches[:1], batches[1:]))
    for name in both:
        np.testing.assert_allclose(both[name], (one[name] + other[name]) / 2)


@pytest.mark.parametrize(
    "criterion, skip, named",
    [
        ("l3_norm", [], ["compress.criterion=l3_norm", "l1_norm", "fpgm"]),
        ("taylor", [], ["taylor", "gradients"]),  # by gradient, without a batch
        ("l1_norm", ["second", "sixth"], ["compress.skip", "sixth", "first, head, second"]),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(criterion, skip, named):
    with pytest.raises(UserError) as error:
        score(criterion, TOWER, WEIGHTS, skip=skip)
    assert all(word in str(error.value) for word in named)


@pytest.mark.parametrize("pattern", ["second", "sec*", "second.weight", "?econd"])
def test_layers_to_skip_are_named_by_any_of_their_names(pattern):
    assert score("l1_norm", TOWER, WEIGHTS, skip=[pattern]).keys() == {"first", "third"}


def test_a_depthwise_layer_to_skip_keeps_the_channels_that_pass_it():
    assert len(score("random", CHAIN, {}, skip=["depthwise"])) == 0
    assert score("random", CHAIN, {}, skip=["last", "auxiliary"]).keys() == {"first"}  # they only read them


def test_skipped_layers_keep_their_shapes():
    network = Tower()
    prune_by_ratio(network, SHAPE, ratio=0.31, skip=["second"])
    assert network.second.weight.shape[0] == 32
    assert network.first.weight.shape[0] < 16 and network.third.weight.shape[0] < 16


def test_importance_is_loaded_as_it_was_saved(tmp_path):
    importance = score("l1_norm", TOWER, WEIGHTS)
    importance.save(tmp_path)
    again = Importance.load(tmp_path)
    assert again.keys() == importance.keys() and all((again[name] == importance[name]).all() for name in importance)
