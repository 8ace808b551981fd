"""What must hold for every network, tried on random ones."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segslim.channels.graph import ChannelGraph
from tests.channels.proof import calibrate, in_float64, paddle, prove, random_kept
from tests.channels.random_networks import RandomNetwork, recipes

SHAPE = (1, 3, 8, 8)


@pytest.mark.slow
@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # the examples are small as they are, and shrinking them takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(recipe=recipes, seed=st.integers(0, 1000))
def test_pruned_equals_masked_and_one_shifted_index_does_not(recipe, seed):
    paddle.seed(seed)
    network = RandomNetwork(recipe)
    graph = ChannelGraph.trace(network, SHAPE)
    kept = random_kept(graph, 0.6, seed)
    with in_float64(network):
        image = paddle.to_tensor(np.random.default_rng(seed).normal(size=(2, *SHAPE[1:])))
        calibrate(network, image)
        right, wrong = prove(network, graph, kept, image[:1])

    assert right < 1e-10
    # what reads a query is a product with the keys, no parameter whose index could be shifted
    assert wrong > 1e-8 or all(name.endswith(".query") for name in kept)
    assert graph.unsupported == []
    assert ChannelGraph.trace(network, SHAPE).flops() == graph.flops(kept)
