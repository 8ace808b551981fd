"""Every rule matters: where it is broken so that the graph changes, the proof fails on some network."""

import copy
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest

from segslim.channels import ChannelGraph
from segslim.channels.rules import RULES
from segslim.channels.trace import trace
from tests.channels.proof import calibrate, in_float64, paddle, prove, random_kept
from tests.channels.random_networks import RandomNetwork
from tests.channels.small import Custom, F, nn
from tests.channels.test_rules import PINNED, PRUNABLE, SHAPE


class _MutatedWalk:
    """A walk with one method replaced, for one rule."""

    def __init__(self, walk, method, replacement):
        self._walk, self._method, self._replacement = walk, method, replacement

    def __getattr__(self, name):
        original = getattr(self._walk, name)
        if name != self._method:
            return original
        return lambda *arguments: self._replacement(original, *arguments)


def rolled(set_ids, tensor, ids):
    """Each channel gets the id of its neighbour."""
    longest = int(np.argmax(ids.shape)) if ids.ndim else None
    set_ids(tensor, ids if longest is None else np.roll(ids, 1, longest))


def nothing(original, *arguments):
    """Channels that must go together are separate; channels that must stay may go."""


def none_left(pinned, ids):
    """Ids end here, but nothing is pinned."""
    return np.zeros((1,) * ids.ndim, np.int64)


AS_AN_ACTIVATION = "passes the first input's ids on"
MUTATIONS = {
    "sets a neighbour's ids": ("set_ids", rolled),
    "unites nothing": ("unite", nothing),
    "pins nothing": ("pin", nothing),
    "pins nothing where ids end": ("pinned", none_left),
    AS_AN_ACTIVATION: ("", nothing),
}


@contextmanager
def broken(function, mutation):
    """Replaces `function` by a broken rule, for all kinds of operators that it is registered for, within the block."""
    before = dict(RULES)

    def mutant(operator, walk):
        if mutation == AS_AN_ACTIVATION:
            walk.set_ids(operator.output, walk.full_ids(operator.input("x", "input")))
        else:
            function(operator, _MutatedWalk(walk, *MUTATIONS[mutation]))

    RULES.update({kind: mutant for kind, rule in before.items() if rule is function})
    try:
        yield
    finally:
        RULES.update(before)


C = ("Conv", 0, 0, 4)
RECIPES = {
    "depthwise": [C, ("Depthwise", 1, 0, 3), ("Conv", 2, 0, 3)],
    "depthwise with a multiplier": [C, ("Depthwise", 1, 0, 2), ("Depthwise", 2, 0, 3), ("Conv", 3, 0, 3)],
    "groups": [C, ("Grouped", 1, 0, 4), ("Conv", 2, 0, 3)],
    "sum": [C, C, ("Sum", 1, 2, 3), ("Conv", 3, 0, 4)],
    "concat": [C, ("Conv", 0, 0, 3), ("Concat", 1, 2, 3), ("Conv", 3, 0, 4)],
    "shuffle": [C, ("Shuffle", 1, 0, 3), ("Conv", 2, 0, 4)],
    "swap": [C, ("Swap", 1, 0, 3), ("Conv", 2, 0, 4)],
    "squeeze": [C, ("Squeeze", 1, 0, 3), ("Conv", 2, 0, 4)],
    "attention": [C, C, ("Attention", 1, 2, 3), ("Conv", 3, 0, 4)],
    "transposed": [C, ("Transposed", 1, 0, 2), ("Conv", 2, 0, 4)],
    "transposed in groups": [C, ("Transposed", 1, 0, 3), ("Conv", 2, 0, 4)],
    "cut": [C, ("Cut", 1, 0, 3), ("Conv", 2, 0, 4)],
    "normalized": [C, ("Normalized", 1, 0, 3), ("Conv", 2, 0, 4)],
}


class Meeting(nn.Layer):
    """Two branches meet in an operator."""

    def __init__(self, operator):
        super().__init__()
        self.left, self.right, self.after = nn.Conv2D(3, 8, 1), nn.Conv2D(3, 8, 1), nn.Conv2D(8, 4, 1)
        self.operator = operator

    def forward(self, image):
        return self.after(self.operator(self.left(image), self.right(image)))


MEETINGS = {
    "two stacked": lambda a, b: paddle.stack([a, b], axis=0).sum(0),
    "two summed": lambda a, b: paddle.add_n([a, b]),
    "one where the other was largest": lambda a, b: F.max_unpool2d(
        F.max_pool2d(a, 2), F.max_pool2d(b, 2, return_mask=True)[1], 2
    ),
}
LAYERS = copy.deepcopy({**PRUNABLE, **PINNED})  # before any test runs: others prune these very layers
NETWORKS = {
    **{name: lambda operator=operator: Meeting(operator) for name, operator in MEETINGS.items()},
    **{name: lambda given=given: Custom(*given) for name, given in LAYERS.items()},
    "a slope for each channel": lambda: Custom(nn.PReLU(8, 0.1)),
    **{f"random: {name}": lambda recipe=recipe: RandomNetwork(recipe) for name, recipe in RECIPES.items()},
}
WITHOUT_CHANNELS = {"read_shape"}  # its results are sizes: there is nothing to get wrong
OF_ONNX = {"einsum"}  # Paddle's has by-products, which no rule knows; that of ONNX is proved in test_onnx_reader
TESTED = [rule for rule in dict.fromkeys(RULES.values()) if rule.__name__ not in WITHOUT_CHANNELS | OF_ONNX]


def built(name):
    paddle.seed(0)
    return NETWORKS[name]()


@cache
def program(name):
    return trace(built(name), SHAPE)


@cache
def uses(name):
    return {RULES[operator.kind] for operator in program(name).operators if operator.kind in RULES}


def said(graph):
    """All of a graph that a pruning depends on."""
    groups = {}
    for group in graph.prunable_groups:
        groups[group.name] = [(member.parameter, member.axis, member.index.tolist()) for member in group.members]
    return groups, graph.multipliers, {key: ids.tolist() for key, ids in graph.attributes.items()}


@cache
def right(name):
    return said(ChannelGraph(program(name)))


def is_wrong(name, graph):
    """Whether a test notices: a rule that gives up, a pruned network that differs, or one that does not even run."""
    return graph.unsupported != [] or any(_differs(name, graph, seed) for seed in (1, 2, 3))


def _differs(name, graph, seed):
    network = built(name)
    try:
        with in_float64(network):
            image = paddle.to_tensor(np.random.default_rng(0).normal(size=SHAPE))
            calibrate(network, image)
            difference, _ = prove(network, graph, random_kept(graph, 0.5, seed), image, everywhere=True)
    except Exception:
        return True
    return not difference < 1e-10


def changed_by(rule, mutation):
    """The networks whose graph is another one with the broken rule, and that graph."""
    found = {}
    for name in NETWORKS:
        if rule in uses(name):
            with broken(rule, mutation):
                graph = ChannelGraph(program(name))
            if said(graph) != right(name):
                found[name] = graph
    return found


@pytest.mark.parametrize("rule", TESTED, ids=lambda rule: rule.__name__)
def test_a_broken_rule_is_noticed(rule):
    changed = {mutation: changed_by(rule, mutation) for mutation in MUTATIONS}
    assert any(changed.values()), "no network has such an operator"
    unnoticed = {
        mutation: list(graphs)
        for mutation, graphs in changed.items()
        if graphs and not any(is_wrong(name, graph) for name, graph in graphs.items())
    }
    assert not unnoticed
