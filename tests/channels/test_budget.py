import numpy as np
import pytest

from segslim.channels import ChannelGraph, Sensitivity
from segslim.channels.allocation import allocate
from segslim.channels.importance import score
from segslim.errors import UserError
from tests.channels.small import Chain


@pytest.fixture(scope="module")
def case(traced):
    found = traced("fast_scnn")
    return found.graph, score("l1_norm", found.graph, {k: v.numpy() for k, v in found.build().state_dict().items()})


def removed(graph, kept):
    return 1 - graph.flops(kept) / graph.flops()


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("align", [1, 8])
def test_the_target_is_reached_and_groups_are_aligned(case, ratio, align):
    graph, scores = case
    kept = allocate(graph, scores, None, ratio, align)
    assert removed(graph, kept) == pytest.approx(ratio, abs=0.01)
    for group in graph.prunable_groups:
        assert len(kept[group.name]) == group.size or len(kept[group.name]) % align == 0
        assert len(kept[group.name]) >= min(align, group.size)


def test_nothing_is_removed_at_ratio_0(case):
    graph, scores = case
    assert removed(graph, allocate(graph, scores, None, 0.0)) == 0


def test_the_least_scores_go(case):
    graph, scores = case
    for name, kept in allocate(graph, scores, None, 0.3).items():
        gone = np.setdiff1d(np.arange(len(scores[name])), kept)
        assert not len(gone) or scores[name][gone].max() <= scores[name][kept].min()
        assert (np.diff(kept) > 0).all()


def test_insensitive_groups_give_more(case):
    graph, scores = case
    names = [group.name for group in graph.prunable_groups]
    losses = {name: {0.25: 0.1 * (i % 2), 0.5: 0.3 * (i % 2), 0.75: 0.5 * (i % 2)} for i, name in enumerate(names)}

    kept = allocate(graph, scores, Sensitivity(0.8, losses), 0.3)

    share = {name: 1 - len(kept[name]) / len(scores[name]) for name in names}
    assert removed(graph, kept) == pytest.approx(0.3, abs=0.01)
    assert np.mean([share[name] for name in names[::2]]) > 0.2
    assert np.mean([share[name] for name in names[1::2]]) < 0.02


def test_equal_sensitivities_give_equal_shares(case):
    graph, scores = case
    losses = {group.name: {0.2: 0.01, 0.4: 0.05, 0.6: 0.2} for group in graph.prunable_groups}
    with_it, without = (allocate(graph, scores, s, 0.4) for s in (Sensitivity(0.8, losses), None))
    for name in with_it:
        assert len(with_it[name]) == pytest.approx(len(without[name]), abs=2)


def test_a_target_beyond_reach_names_the_most(case):
    chain = ChannelGraph.trace(Chain(), (1, 3, 8, 8))
    with pytest.raises(UserError, match=r"cannot remove 0.900 of the FLOPs: at most 0.875 can be removed with align=1"):
        allocate(chain, {"first": np.arange(8.0)}, None, 0.9)
    with pytest.raises(
        UserError, match=r"cannot remove 0.200 of the FLOPs to within 0.01 with align=4: 0.000 is the closest"
    ):
        allocate(chain, {"first": np.arange(8.0)}, None, 0.2, align=4)
    with pytest.raises(UserError, match=r"ratio is from 0 to below 1"):
        allocate(*case, None, 1.2)


def test_a_sensitivity_of_another_network_is_refused(case):
    graph, scores = case
    with pytest.raises(UserError, match=r"another network"):
        allocate(graph, scores, Sensitivity(0.8, {"elsewhere": {0.5: 0.1}}), 0.3)


def test_an_alignment_that_misses_the_ratio_is_halved_with_a_warning(caplog):
    chain = ChannelGraph.trace(Chain(), (1, 3, 8, 8))

    kept = allocate(chain, {"first": np.arange(8.0)}, None, 0.25, align=4)

    assert 1 - chain.flops(kept) / chain.flops() == pytest.approx(0.25, abs=0.01)
    assert "align=4 cannot remove 0.250 of the FLOPs: align=2 is used" in caplog.text
