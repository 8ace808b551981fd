"""Channels removed in place, recorded, and applied to a newly built network."""

import json

import numpy as np
import pytest

from segslim.channels import ChannelGraph, Channels, apply_channels, prune, prune_by_ratio
from segslim.errors import UserError
from tests.channels.proof import difference, outputs
from tests.channels.small import Chain, nn, paddle

SHAPE = (1, 3, 8, 8)
IMAGE = paddle.randn(SHAPE)


def assert_rebuilt(fresh, channels, pruned):
    """A new network with these channels and the pruned one's weights computes the same."""
    apply_channels(fresh, Channels.from_json(json.loads(json.dumps(channels.to_json()))))
    for name, value in fresh.state_dict().items():
        value.set_value(pruned.state_dict()[name])
    assert difference(outputs(fresh, IMAGE), outputs(pruned, IMAGE)) == 0


def test_parameters_keep_their_identity_their_names_and_the_values_of_what_is_kept():
    network = Chain()
    before = {name: (id(value), value.name) for name, value in network.state_dict().items()}
    dense = network.first.weight.numpy()

    channels = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [0, 3, 5]})

    assert before == {name: (id(value), value.name) for name, value in network.state_dict().items()}
    np.testing.assert_array_equal(network.first.weight.numpy(), dense[[0, 3, 5]])
    assert network.depthwise.weight.shape == [6, 1, 3, 3] and network.depthwise._groups == 3
    assert network.first._out_channels == 3 and network.norm._num_features == 3
    assert_rebuilt(Chain(), channels, network)


def test_pruning_twice_composes():
    network = Chain()
    once = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [1, 2, 4, 6, 7]})
    twice = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [0, 2, 3]}, once)

    assert twice.kept["first.weight"][0] == [1, 4, 6]
    assert twice.groups["depthwise"] == 3
    assert_rebuilt(Chain(), twice, network)


def test_pruning_by_ratio_composes_and_reports_flops():
    network = Chain()
    first = prune_by_ratio(network, SHAPE, ratio=0.25)
    second = prune_by_ratio(network, SHAPE, ratio=0.33, channels=first.channels)

    assert first.flops_after == second.flops_before
    assert second.flops_after / first.flops_before == pytest.approx(0.75 * 0.67, abs=0.02)
    assert_rebuilt(Chain(), second.channels, network)


class Reshaping(nn.Layer):
    """Reshapes by an attribute, which may also scale the result."""

    def __init__(self, scaled):
        super().__init__()
        self.dim, self.heads, self.scaled = 8, 2, scaled
        self.before, self.after = nn.Conv2D(3, 8, 1), nn.Conv2D(8, 4, 1)

    def forward(self, x):
        x = self.before(x)
        x = self.after(x.reshape([0, self.dim, -1]).reshape([x.shape[0], self.dim, 8, 8])) * self.heads
        return x * self.dim**-0.5 if self.scaled else x


def test_layers_that_store_a_size_follow():
    network = Reshaping(scaled=False)
    channels = prune(network, ChannelGraph.trace(network, SHAPE), {"before": [2, 3, 4]})

    assert network.dim == 3 and type(network.dim) is int and network.heads == 2
    assert network(IMAGE).shape == [1, 4, 8, 8]
    assert_rebuilt(Reshaping(scaled=False), channels, network)


def test_an_attribute_that_is_computed_with_does_not_change():
    assert ChannelGraph.trace(Reshaping(scaled=True), SHAPE).prunable_groups == []


def test_shared_parameters_are_pruned_once_under_all_their_names():
    class Tied(nn.Layer):
        def __init__(self):
            super().__init__()
            self.stem, self.last = nn.Conv2D(3, 8, 1), nn.Conv2D(6, 2, 1)
            self.one, self.two = nn.Conv2D(8, 6, 1), nn.Conv2D(8, 6, 1)
            self.two.weight = self.one.weight

        def forward(self, x):
            x = nn.functional.relu(self.stem(x))
            return self.last(self.one(x) + self.two(x))

    network = Tied()
    channels = prune(network, ChannelGraph.trace(network, SHAPE), {"stem": [0, 1, 5], "one": [0, 2]})

    assert network.two.weight is network.one.weight and network.one.weight.shape == [2, 3, 1, 1]
    assert_rebuilt(Tied(), channels, network)


@pytest.mark.parametrize(
    "kept, named",
    [
        ({"gone.weight": {0: [0]}}, ["gone.weight", "Chain"]),
        ({"first.weight": {0: [0, 9]}}, ["first.weight", "8 channels", "9"]),
        ({"first.weight": {0: []}}, ["first.weight", "nothing"]),
        ({"first.weight": {0: [0.5]}}, ["first.weight", "0.5"]),
    ],
)
def test_channels_of_another_network_are_refused_before_anything_changes(kept, named):
    network = Chain()
    with pytest.raises(UserError) as error:
        apply_channels(network, Channels({"norm.weight": {0: [0]}, **kept}))
    assert all(word in str(error.value) for word in named)
    assert network.norm.weight.shape == [8]
