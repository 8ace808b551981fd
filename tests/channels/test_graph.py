import logging

import numpy as np
import pytest

from segslim.channels import ChannelGraph
from segslim.errors import UserError
from tests.channels.small import Chain, Custom, Mixer, nn, paddle

SHAPE = (1, 3, 8, 8)


def graph_of(network, shape=SHAPE):
    return ChannelGraph.trace(network, shape)


def test_flops_and_parameters_are_those_counted_by_hand():
    graph, kept = graph_of(Chain()), {"first": [0, 3, 5]}
    assert graph.flops() == 64 * 8 * 3 * 9 + 64 * 16 * 9 + 64 * 4 * 16  # without the auxiliary head
    assert graph.flops(kept) == 64 * 3 * 3 * 9 + 64 * 6 * 9 + 64 * 4 * 6
    assert graph.parameters() == 8 * 27 + 16 + (16 * 9 + 16) + (4 * 16 + 4) + (4 * 8 + 4)
    assert graph.parameters(kept) == 3 * 27 + 6 + (6 * 9 + 6) + (4 * 6 + 4) + (4 * 3 + 4)
    assert graph_of(Chain(), (1, 3, 16, 16)).flops() == 4 * graph.flops()
    assert graph_of(Mixer()).flops() == 64 * 8 * 3 + 64 * 6 * 8 + 64 * 64 * 6  # a linear layer and a product


def test_a_group_names_its_members_and_what_they_do():
    group = next(group for group in graph_of(Chain()).groups if group.name == "first")

    members = {(member.parameter, member.axis): member for member in group.members}
    assert group.size == 8 and group.prunable
    assert members["first.weight", 0].role == "produces"
    assert members["auxiliary.weight", 1].role == "consumes"
    assert {"norm.weight", "norm.bias", "norm._mean", "norm._variance"} <= {name for name, _ in members}
    assert members["depthwise.weight", 0].role == "carries"
    np.testing.assert_array_equal(members["depthwise.weight", 0].index, np.repeat(np.arange(8), 2))


def test_outputs_are_pinned():
    graph = graph_of(Chain())
    assert [group.name for group in graph.prunable_groups] == ["first"] and len(graph.classes) == 8


def test_an_unknown_operator_pins_its_channels_and_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        graph = graph_of(Custom(lambda x: paddle.cumsum(x, axis=2)))

    assert graph.unsupported == ["cumsum"]
    assert graph.prunable_groups == []
    assert "cumsum" in caplog.text


def test_tracing_leaves_the_network_as_it_was():
    network = Chain()
    network.train()
    network.norm.eval()
    image = paddle.randn([1, 3, 8, 8])
    before = [value.numpy() for value in network(image)]
    attributes = {path: set(vars(layer)) for path, layer in network.named_sublayers(include_self=True)}

    graph_of(network)

    assert network.training and network.last.training and not network.norm.training
    assert attributes == {path: set(vars(layer)) for path, layer in network.named_sublayers(include_self=True)}
    assert type(paddle.shape(image)) is type(image) and type(image.shape[0]) is int
    for a, b in zip(before, network(image), strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_network_that_decides_by_values_cannot_be_traced():
    with pytest.raises(UserError, match=r"Custom cannot be traced .* truth|bool"):
        graph_of(Custom(lambda x: x * 2 if x.mean() > 0 else x))


def test_shared_layers_are_counted_at_each_use_and_pruned_once():
    shared = nn.Conv2D(8, 8, 1)
    graph = graph_of(Custom(nn.Sequential(shared, nn.ReLU(), shared)))
    assert graph.flops() == 64 * (8 * 3 + 2 * 64 + 4 * 8)
    assert [group.name for group in graph.prunable_groups] == ["before"]
