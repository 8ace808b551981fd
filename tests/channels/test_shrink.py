import json

import numpy as np
import pytest

from segslim.channels import ChannelGraph, Channels, apply_channels, prune, prune_by_ratio
from segslim.errors import UserError
from tests.channels.proof import difference, outputs
from tests.channels.small import Chain, nn, paddle

SHAPE = (1, 3, 8, 8)
IMAGE = paddle.randn(SHAPE)


def copy_weights(source, target):
    for name, value in target.state_dict().items():
        value.set_value(source.state_dict()[name])


def test_shrinking_keeps_the_parameter_objects_and_their_names():
    network = Chain()
    before = {name: (id(value), value.name) for name, value in network.state_dict().items()}

    prune(network, ChannelGraph.trace(network, SHAPE), {"first": [0, 3, 5]})

    assert before == {name: (id(value), value.name) for name, value in network.state_dict().items()}
    assert network.first.weight.shape == [3, 3, 3, 3]
    assert network.depthwise.weight.shape == [6, 1, 3, 3]
    assert network.depthwise._groups == 3
    assert network.first._out_channels == 3 and network.norm._num_features == 3


def test_what_is_kept_keeps_its_values():
    network = Chain()
    dense = network.first.weight.numpy()
    prune(network, ChannelGraph.trace(network, SHAPE), {"first": [0, 3, 5]})
    np.testing.assert_array_equal(network.first.weight.numpy(), dense[[0, 3, 5]])


def test_a_fresh_network_takes_on_the_structure_from_json():
    network, fresh = Chain(), Chain()
    channels = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [1, 2]})

    apply_channels(fresh, Channels.from_json(json.loads(json.dumps(channels.to_json()))))
    copy_weights(network, fresh)

    assert difference(outputs(fresh, IMAGE), outputs(network, IMAGE)) == 0


def test_pruning_twice_composes():
    network, fresh = Chain(), Chain()
    once = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [1, 2, 4, 6, 7]})
    twice = prune(network, ChannelGraph.trace(network, SHAPE), {"first": [0, 2, 3]}, once)

    assert twice.kept["first.weight"][0] == [1, 4, 6]
    assert twice.groups["depthwise"] == 3
    apply_channels(fresh, twice)
    copy_weights(network, fresh)
    assert difference(outputs(fresh, IMAGE), outputs(network, IMAGE)) == 0


def test_layers_that_store_a_size_follow():
    class Stored(nn.Layer):
        def __init__(self):
            super().__init__()
            self.dim, self.heads = 8, 2
            self.before, self.after = nn.Conv2D(3, 8, 1), nn.Conv2D(8, 4, 1)

        def forward(self, x):
            x = self.before(x)
            return self.after(x.reshape([0, self.dim, -1]).reshape([x.shape[0], self.dim, 8, 8])) * self.heads

    network = Stored()
    channels = prune(network, ChannelGraph.trace(network, SHAPE), {"before": [2, 3, 4]})

    assert network.dim == 3 and type(network.dim) is int and network.heads == 2
    assert channels.sizes == {"": {"dim": 3}}
    assert network(IMAGE).shape == [1, 4, 8, 8]


def test_an_attribute_that_is_computed_with_does_not_change():
    class Scaled(nn.Layer):
        def __init__(self):
            super().__init__()
            self.dim = 8
            self.before, self.after = nn.Conv2D(3, 8, 1), nn.Conv2D(8, 4, 1)

        def forward(self, x):
            return self.after(self.before(x).reshape([0, self.dim, 8, 8]) * self.dim**-0.5)

    assert ChannelGraph.trace(Scaled(), SHAPE).prunable_groups == []


def test_shared_parameters_are_cut_once_under_all_their_names():
    class Tied(nn.Layer):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two, self.last = (
                nn.Conv2D(3, 8, 1), nn.Conv2D(8, 6, 1), nn.Conv2D(8, 6, 1), nn.Conv2D(6, 2, 1)
            )  # fmt: skip
            self.two.weight = self.one.weight

        def forward(self, x):
            x = nn.functional.relu(self.stem(x))
            return self.last(self.one(x) + self.two(x))

    network, fresh = Tied(), Tied()
    graph = ChannelGraph.trace(network, SHAPE)
    channels = prune(network, graph, {"stem": [0, 1, 5], "one": [0, 2]})

    assert network.two.weight is network.one.weight and network.one.weight.shape == [2, 3, 1, 1]
    apply_channels(fresh, channels)
    copy_weights(network, fresh)
    assert difference(outputs(fresh, IMAGE), outputs(network, IMAGE)) == 0


def test_channels_of_another_network_are_refused():
    with pytest.raises(UserError, match=r"gone.weight, which Chain does not have"):
        apply_channels(Chain(), Channels({"gone.weight": {0: [0]}}))
    with pytest.raises(UserError, match=r"first.weight has 8 channels on axis 0, but index 9"):
        apply_channels(Chain(), Channels({"first.weight": {0: [0, 9]}}))


def test_prune_tells_what_it_did_and_composes():
    network = Chain()
    first = prune_by_ratio(network, SHAPE, ratio=0.25)
    second = prune_by_ratio(network, SHAPE, ratio=0.33, channels=first.channels)

    assert first.flops_after == second.flops_before
    assert second.flops_after / first.flops_before == pytest.approx(0.75 * 0.67, abs=0.02)
    fresh = Chain()
    apply_channels(fresh, second.channels)
    copy_weights(network, fresh)
    assert difference(outputs(fresh, IMAGE), outputs(network, IMAGE)) == 0
