"""Which groups give more channels."""

import numpy as np
import pytest

from segslim.channels import ChannelGraph, Sensitivity, prune_by_ratio
from segslim.channels.allocation import LEAST_SHARE, allocate
from segslim.channels.importance import score
from segslim.errors import UserError
from tests.channels.proof import difference, outputs
from tests.channels.small import Tower, paddle

SHAPE = (1, 3, 8, 8)
GRAPH = ChannelGraph.trace(Tower(), SHAPE)
SIZES = {group.name: group.size for group in GRAPH.prunable_groups}
FLAT = {name: np.ones(size) for name, size in SIZES.items()}


def removed(kept, graph=GRAPH):
    return 1 - graph.flops(kept) / graph.flops()


def share(kept, name):
    return 1 - len(kept[name]) / SIZES[name]


def with_dead_filters(seed=0):
    """A network of which some filters, more in some layers than in others, are zero."""
    paddle.seed(seed)
    network = Tower()
    dead = {"first": [1, 4, 5, 9, 12], "second": [0, 7], "third": [2, 3, 8, 10, 11, 12, 15]}
    for name, filters in dead.items():
        weight = getattr(network, name).weight
        values = weight.numpy()
        values[filters] = 0
        weight.set_value(values)
    return network, dead


def gradients_of(network):
    network(paddle.randn(SHAPE))[0].square().mean().backward()
    return [{name: value.grad.numpy() for name, value in network.state_dict().items()}]


@pytest.mark.parametrize("criterion", ["l1_norm", "l2_norm", "taylor"])
def test_dead_filters_go_first_wherever_they_are(criterion):
    network, dead = with_dead_filters()
    image = paddle.randn(SHAPE)
    before = outputs(network, image)
    all_dead = {name: np.setdiff1d(np.arange(size), dead[name]) for name, size in SIZES.items()}

    gradients = gradients_of(network) if criterion == "taylor" else ()
    result = prune_by_ratio(network, SHAPE, removed(all_dead), criterion, allocation="global", gradients=gradients)

    assert {name: kept.tolist() for name, kept in result.kept.items()} == {n: k.tolist() for n, k in all_dead.items()}
    assert difference(outputs(network, image), before) < 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_chance_does_not_find_them(seed):
    network, _ = with_dead_filters()
    image = paddle.randn(SHAPE)
    before = outputs(network, image)
    prune_by_ratio(network, SHAPE, 0.5, "random", allocation="global", seed=seed)
    assert difference(outputs(network, image), before) > 0.01


def test_of_channels_worth_the_same_those_go_first_that_save_most():
    kept = allocate(GRAPH, FLAT, None, 0.2, allocation="global")
    # multiplications a position: 9 x 3 + 9 x 32 for each of first, 9 x 16 + 9 x 16 of second, 9 x 32 + 4 of third
    assert share(kept, "first") > 0.3 and share(kept, "second") == share(kept, "third") == 0


def test_another_cost_changes_what_goes_first():
    weight = {"first": 1.0, "second": 9.0, "third": 1.0}

    def cost(kept):
        return sum(weight[name] * len(kept.get(name, range(SIZES[name]))) for name in SIZES)

    kept = allocate(GRAPH, FLAT, None, 0.3, allocation="global", cost=cost)
    assert 1 - cost(kept) / cost({}) == pytest.approx(0.3, abs=0.01)
    assert share(kept, "second") > 0.3 and share(kept, "first") == share(kept, "third") == 0


def test_every_group_keeps_a_least_share():
    scores = {**FLAT, "second": np.zeros(32)}
    kept = allocate(GRAPH, scores, None, 0.8, allocation="global")
    assert len(kept["second"]) in (4, 5) and np.ceil(LEAST_SHARE * 32) == 4
    with pytest.raises(UserError, match=r"cannot remove 0.990 of the FLOPs: at most 0.9\d\d can be removed"):
        allocate(GRAPH, scores, None, 0.99, allocation="global")


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_groups_keep_multiples_of_the_alignment_and_the_ratio_is_reached(traced, allocation, ratio):
    graph = traced("fast_scnn").graph
    scores = score("random", graph, {})
    kept = allocate(graph, scores, None, ratio, align=8, allocation=allocation)
    assert removed(kept, graph) == pytest.approx(ratio, abs=0.01)
    for group in graph.prunable_groups:
        assert len(kept[group.name]) in (group.size, *range(8, group.size, 8))


def test_channels_of_auxiliary_heads_save_nothing_and_stay(traced):
    graph = traced("fast_scnn").graph
    auxiliary = [group.name for group in graph.prunable_groups if "auxlayer" in group.name]
    scores = score("random", graph, {})
    kept = allocate(graph, {**scores, **{name: 0 * scores[name] for name in auxiliary}}, None, 0.3, allocation="global")
    sizes = {group.name: group.size for group in graph.prunable_groups}
    assert auxiliary and all(len(kept[name]) == sizes[name] for name in auxiliary)


def test_a_ratio_may_be_of_what_there_was_before():
    kept = allocate(GRAPH, FLAT, None, 0.5, total=GRAPH.flops() / 0.8)  # a fifth is gone already
    assert 1 - GRAPH.flops(kept) / (GRAPH.flops() / 0.8) == pytest.approx(0.5, abs=0.01)


def test_equal_loss_wants_a_sensitivity_and_the_others_have_no_use_for_it():
    sensitivity = Sensitivity(0.8, {"first": {0.5: 0.0}, "second": {0.5: 0.5}, "third": {0.5: 0.5}})
    with pytest.raises(UserError, match="allocation 'equal_loss' needs a sensitivity"):
        allocate(GRAPH, FLAT, None, 0.2, allocation="equal_loss")
    with_it = allocate(GRAPH, FLAT, sensitivity, 0.2, allocation="uniform")
    without = allocate(GRAPH, FLAT, None, 0.2, allocation="uniform")
    assert all((with_it[name] == without[name]).all() for name in with_it)


def test_a_group_without_scores_keeps_all():
    kept = allocate(GRAPH, {"first": np.ones(16)}, None, 0.2)
    assert kept.keys() == {"first"} and removed(kept) == pytest.approx(0.2, abs=0.01)
