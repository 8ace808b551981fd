"""How many channels each group keeps: the ratio is reached, and the channels that are worth least for their cost go."""

import numpy as np
import pytest

from segslim.channels import ChannelGraph, Sensitivity, allocate, prune_by_ratio, score
from segslim.channels.allocation import LEAST_SHARE, check_reachable
from segslim.errors import UserError
from tests.channels.proof import difference, outputs
from tests.channels.small import Chain, Tower, paddle

SHAPE = (1, 3, 8, 8)
GRAPH = ChannelGraph.trace(Tower(), SHAPE)
SIZES = {group.name: group.size for group in GRAPH.prunable_groups}
EQUAL = {name: np.ones(size) for name, size in SIZES.items()}
CHAIN = ChannelGraph.trace(Chain(), SHAPE)  # one group, whose 8 channels are 1/8 of the FLOPs each
CHAIN_SCORES = {"first": np.arange(8.0)}


@pytest.fixture(scope="module")
def case(traced):
    case = traced("fast_scnn")
    return case.graph, score("l1_norm", case.graph, {k: v.numpy() for k, v in case.build().state_dict().items()})


def removed(kept, graph=GRAPH):
    return 1 - graph.flops(kept) / graph.flops()


def share(kept, name):
    return 1 - len(kept[name]) / SIZES[name]


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("align", [1, 8])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5])
def test_the_ratio_is_reached_and_groups_keep_the_best_multiples_of_the_alignment(case, ratio, align, allocation):
    graph, importance = case
    kept = allocate(graph, importance, None, ratio, align, allocation=allocation)
    assert removed(kept, graph) == pytest.approx(ratio, abs=0.01 if ratio else 0)
    for group in graph.prunable_groups:
        channels, scores = kept[group.name], importance[group.name]
        assert len(channels) in (group.size, *range(align, group.size, align))
        assert (np.diff(channels) > 0).all()
        assert np.delete(scores, channels).max(initial=0) <= scores[channels].min()


@pytest.mark.parametrize("criterion", ["l1_norm", "l2_norm", "taylor", "random"])
def test_a_global_allocation_removes_dead_filters_first_and_chance_does_not(criterion):
    paddle.seed(0)
    network, image = Tower(), paddle.randn(SHAPE)
    dead = {"first": [1, 4, 5, 9, 12], "second": [0, 7], "third": [2, 3, 8, 10, 11, 12, 15]}
    for name, filters in dead.items():
        weight = getattr(network, name).weight
        values = weight.numpy()
        values[filters] = 0
        weight.set_value(values)
    before = outputs(network, image)
    network(image)[0].square().mean().backward()
    gradients = [{name: value.grad.numpy() for name, value in network.state_dict().items()}]
    alive = {name: np.setdiff1d(np.arange(size), dead[name]).tolist() for name, size in SIZES.items()}

    result = prune_by_ratio(network, SHAPE, removed(alive), criterion, allocation="global", gradients=gradients)

    found = {name: kept.tolist() for name, kept in result.kept.items()} == alive
    changed = difference(outputs(network, image), before)
    assert (not found and changed > 0.01) if criterion == "random" else (found and changed < 1e-6)


def test_of_channels_worth_the_same_those_go_first_that_save_most():
    kept = allocate(GRAPH, EQUAL, None, 0.2, allocation="global")
    # multiplications a position: 9 x 3 + 9 x 32 for each of first, 9 x 16 + 9 x 16 of second, 9 x 32 + 4 of third
    assert share(kept, "first") > 0.3 and share(kept, "second") == share(kept, "third") == 0


def test_a_ratio_may_be_of_an_earlier_total():
    kept = allocate(GRAPH, EQUAL, None, 0.5, total=GRAPH.flops() / 0.8)  # a fifth was pruned before
    assert 1 - GRAPH.flops(kept) / (GRAPH.flops() / 0.8) == pytest.approx(0.5, abs=0.01)


def test_every_group_keeps_a_least_share():
    importance = {**EQUAL, "second": np.zeros(32)}
    kept = allocate(GRAPH, importance, None, 0.8, allocation="global")
    assert len(kept["second"]) in (4, 5) and np.ceil(LEAST_SHARE * 32) == 4


def test_channels_of_auxiliary_heads_save_nothing_and_stay(traced):
    graph = traced("fast_scnn").graph
    auxiliary = {group.name: group.size for group in graph.prunable_groups if "auxlayer" in group.name}
    importance = {**score("random", graph, {}), **{name: np.zeros(size) for name, size in auxiliary.items()}}
    kept = allocate(graph, importance, None, 0.3, allocation="global")
    assert auxiliary and {name: len(kept[name]) for name in auxiliary} == auxiliary


def test_a_group_without_scores_keeps_all():
    kept = allocate(GRAPH, {"first": np.ones(16)}, None, 0.2)
    assert kept.keys() == {"first"} and removed(kept) == pytest.approx(0.2, abs=0.01)


def test_insensitive_groups_lose_more(case):
    graph, importance = case
    names = [group.name for group in graph.prunable_groups]
    losses = {name: {0.25: 0.1 * (i % 2), 0.5: 0.3 * (i % 2), 0.75: 0.5 * (i % 2)} for i, name in enumerate(names)}

    kept = allocate(graph, importance, Sensitivity(0.8, losses), 0.3)

    lost = [1 - len(kept[name]) / len(importance[name]) for name in names]
    assert removed(kept, graph) == pytest.approx(0.3, abs=0.01)
    assert np.mean(lost[::2]) > 0.2 and np.mean(lost[1::2]) < 0.02


def test_equal_sensitivities_give_equal_shares(case):
    graph, importance = case
    losses = {group.name: {0.2: 0.01, 0.4: 0.05, 0.6: 0.2} for group in graph.prunable_groups}
    by_loss, uniform = (allocate(graph, importance, s, 0.4) for s in (Sensitivity(0.8, losses), None))
    assert all(len(by_loss[name]) == pytest.approx(len(uniform[name]), abs=2) for name in uniform)


def test_a_uniform_allocation_ignores_the_sensitivity():
    sensitivity = Sensitivity(0.8, {"first": {0.5: 0.0}, "second": {0.5: 0.5}, "third": {0.5: 0.5}})
    with_it, without = (allocate(GRAPH, EQUAL, s, 0.2, allocation="uniform") for s in (sensitivity, None))
    assert all((with_it[name] == without[name]).all() for name in with_it)


@pytest.mark.parametrize(
    "importance, ratio, options, named",
    [
        (CHAIN_SCORES, 0.9, {}, ["0.900", "FLOPs", "0.875"]),  # the most that can be removed
        (CHAIN_SCORES, 0.2, {"align": 4}, ["0.200", "0.250"]),  # the closest
        (CHAIN_SCORES, 1.2, {}, ["1.2", "ratio"]),
        (CHAIN_SCORES, 0.5, {"align": 0}, ["align=0"]),
        (CHAIN_SCORES, 0.2, {"allocation": "equal_loss"}, ["equal_loss", "sensitivity", "uniform"]),
        (CHAIN_SCORES, 0.2, {"sensitivity": Sensitivity(0.8, {"elsewhere": {0.5: 0.1}})}, ["another network"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(importance, ratio, options, named):
    with pytest.raises(UserError) as error:
        allocate(CHAIN, importance, options.pop("sensitivity", None), ratio, **options)
    assert all(word in str(error.value) for word in named) and "\n" not in str(error.value)


def test_what_is_out_of_reach_is_known_before_there_are_scores():
    check_reachable(GRAPH, EQUAL, 0.9, "uniform")
    for graph, importance, ratio, allocation in ((CHAIN, CHAIN_SCORES, 0.9, "uniform"), (GRAPH, EQUAL, 0.99, "global")):
        with pytest.raises(UserError, match=f"{ratio:.3f} of the FLOPs"):
            check_reachable(graph, importance, ratio, allocation)


def test_an_alignment_that_misses_the_ratio_is_halved_with_a_warning(caplog):
    kept = allocate(CHAIN, CHAIN_SCORES, None, 0.25, align=4)
    assert removed(kept, CHAIN) == pytest.approx(0.25, abs=0.01)
    assert "align=4" in caplog.text and "align=2" in caplog.text
