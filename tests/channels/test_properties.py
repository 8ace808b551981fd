"""What must hold for every network, tried on random ones."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segslim.channels.graph import ChannelGraph
from segslim.channels.rules import RULES
from tests.channels.proof import calibrate, in_float64, paddle, prove, random_kept
from tests.channels.random_networks import RandomNetwork, recipes

SHAPE = (1, 3, 8, 8)


def proof_of(recipe, seed):
    paddle.seed(seed)
    network = RandomNetwork(recipe)
    graph = ChannelGraph.trace(network, SHAPE)
    kept = random_kept(graph, 0.6, seed)
    with in_float64(network):
        image = paddle.to_tensor(np.random.default_rng(seed).normal(size=(2, *SHAPE[1:])))
        calibrate(network, image)
        return graph, kept, prove(network, graph, kept, image[:1]), network


@pytest.mark.slow
@settings(
    max_examples=200,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # the examples are small as they are, and shrinking them takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(recipe=recipes, seed=st.integers(0, 1000))
def test_pruned_equals_masked_and_one_shifted_index_does_not(recipe, seed):
    graph, kept, (right, wrong), network = proof_of(recipe, seed)

    assert right < 1e-10
    assert wrong > 1e-8 or not kept
    assert graph.unsupported == []
    assert ChannelGraph.trace(network, SHAPE).flops() == graph.flops(kept)


def forgetful_sum(operator, walk):
    walk.set_ids(operator.output, walk.full_ids(operator.input("x")))


def reversed_concat(operator, walk):
    names = operator.inputs["x"][::-1]
    walk.set_ids(operator.output, np.concatenate([walk.full_ids(name) for name in names], 1))


def forgetful_split(operator, walk):
    for output, part in zip(operator.outputs, np.split(walk.full_ids(operator.input("x")), 2, 1), strict=True):
        walk.set_ids(output, part)


@pytest.mark.parametrize(
    "kind, wrong_rule, recipe",
    [
        ("add", forgetful_sum, [("Conv", 0, 0, 4), ("Conv", 0, 0, 4), ("Sum", 1, 2, 3), ("Conv", 3, 0, 4)]),
        ("concat", reversed_concat, [("Conv", 0, 0, 4), ("Conv", 0, 0, 4), ("Concat", 1, 2, 3), ("Conv", 3, 0, 4)]),
        ("split", forgetful_split, [("Conv", 0, 0, 4), ("Swap", 1, 0, 3), ("Conv", 2, 0, 4)]),
    ],
)
def test_the_proof_notices_a_wrong_rule(monkeypatch, kind, wrong_rule, recipe):
    monkeypatch.setitem(RULES, kind, wrong_rule)
    try:
        right = proof_of(recipe, 0)[2][0]
    except Exception:
        right = np.inf  # the pruned network does not even run
    assert right > 1e-7
