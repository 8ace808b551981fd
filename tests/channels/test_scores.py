import numpy as np
import pytest

from segslim.channels import ChannelGraph, prune_by_ratio
from segslim.channels.importance import Importance, score
from segslim.errors import UserError
from tests.channels.small import Chain, Tower

GRAPH = ChannelGraph.trace(Tower(), (1, 3, 8, 8))
WEIGHTS = {name: value.numpy() for name, value in Tower().state_dict().items()}


def test_an_unknown_criterion_is_refused():
    with pytest.raises(UserError, match=r"compress\.criterion=l3_norm: should be one of l1_norm, l2_norm, fpgm"):
        score("l3_norm", GRAPH, {})


def test_scores_by_gradient_are_the_mean_over_the_batches():
    batches = [
        {name: np.random.default_rng(seed).normal(size=w.shape) for name, w in WEIGHTS.items()} for seed in (1, 2)
    ]
    both, one, other = (score("taylor", GRAPH, WEIGHTS, iter(given)) for given in (batches, batches[:1], batches[1:]))
    for name in both:
        np.testing.assert_allclose(both[name], (one[name] + other[name]) / 2)


def test_a_criterion_by_gradient_wants_a_batch():
    with pytest.raises(UserError, match="'taylor' judges by gradients: give those of at least one mini-batch"):
        score("taylor", GRAPH, WEIGHTS)


@pytest.mark.parametrize("pattern", ["second", "sec*", "second.weight", "?econd"])
def test_layers_to_skip_are_named_by_any_of_their_names(pattern):
    assert score("l1_norm", GRAPH, WEIGHTS, skip=[pattern]).keys() == {"first", "third"}


def test_a_pattern_without_a_layer_is_named_with_some_that_are_there():
    with pytest.raises(UserError, match=r"compress.skip: 'sixth' matches none of the 4 layers: first, head, second"):
        score("l1_norm", GRAPH, WEIGHTS, skip=["second", "sixth"])


def test_a_depthwise_layer_to_skip_keeps_the_channels_that_pass_it():
    graph = ChannelGraph.trace(Chain(), (1, 3, 8, 8))
    assert score("random", graph, {}, skip=["depthwise"]) == {}
    assert score("random", graph, {}, skip=["last", "auxiliary"]).keys() == {"first"}  # they only read them


def test_skipped_layers_keep_their_shapes():
    network = Tower()
    prune_by_ratio(network, (1, 3, 8, 8), ratio=0.31, skip=["second"])
    assert network.second.weight.shape[0] == 32
    assert network.first.weight.shape[0] < 16 and network.third.weight.shape[0] < 16


def test_a_file_gives_back_the_scores(tmp_path):
    scores = score("l1_norm", GRAPH, WEIGHTS)
    scores.save(tmp_path)
    again = Importance.load(tmp_path)
    assert again.keys() == scores.keys() and all((again[name] == scores[name]).all() for name in scores)
