"""Every network of the zoo is pruned rightly: the tutorial's five in seconds, the others marked slow."""

import numpy as np
import pytest

from segslim.channels import prune_by_ratio
from segslim.channels.graph import ChannelGraph
from tests.channels.conftest import INPUT
from tests.channels.networks import OTHERS, TUTORIAL, paddle
from tests.channels.proof import calibrate, in_float64, prove, random_kept

ALL = [*TUTORIAL, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.mark.parametrize("name", ALL)
def test_pruned_network_equals_masked_network(traced, name):
    case = traced(name)
    network = case.build()
    kept = random_kept(case.graph, 0.6, seed=0)

    with in_float64(network):
        image = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, *INPUT[1:])))
        calibrate(network, image)
        right, wrong = prove(network, case.graph, kept, image[:1])

    assert right < 1e-10
    assert wrong > 1e-7
    assert case.graph.unsupported == []
    again = ChannelGraph.trace(network, INPUT)
    assert again.flops() == case.graph.flops(kept)
    assert again.parameters() == case.graph.parameters(kept)


@pytest.mark.parametrize("name", ALL)
def test_pruned_network_has_the_flops_asked_for_and_trains_on(traced, name):
    network = traced(name).build()
    pruned = prune_by_ratio(network, INPUT, ratio=0.5)
    assert pruned.flops_after / pruned.flops_before == pytest.approx(0.5, abs=0.01)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    network.train()

    logits = paddle.utils.flatten(network(paddle.randn([2, *INPUT[1:]])))
    loss = sum((value**2).mean() for value in logits)
    loss.backward()
    optimizer.step()

    learning = [parameter for parameter in network.parameters() if parameter.grad is not None]
    assert np.isfinite(float(loss))
    assert len(learning) > 0.5 * len([parameter for parameter in network.parameters() if parameter.trainable])
    assert all(parameter.grad.shape == parameter.shape for parameter in learning)
    assert all(np.isfinite(parameter.numpy()).all() for parameter in learning)
