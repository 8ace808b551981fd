"""Costs in time. `measure` is a known function of the counts, so that the right answer can be calculated."""

from itertools import pairwise

import numpy as np
import pytest

from segslim.channels import ChannelGraph, allocate
from segslim.channels.latency import LatencyCost, profile, reach
from segslim.errors import UserError
from tests.channels.small import nn

WIDTHS = (16, 32, 64)


class Convolutions(nn.Layer):
    """3 -> 16 -> 32 -> 64 -> 4."""

    def __init__(self):
        super().__init__()
        widths = (3, *WIDTHS, 4)
        self.layers = nn.LayerList([nn.Conv2D(a, b, 1) for a, b in pairwise(widths)])

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return x


GRAPH = ChannelGraph.trace(Convolutions(), (1, 3, 8, 8))
NAMES = [group.name for group in GRAPH.prunable_groups]
SCORES = {group.name: np.arange(float(group.size)) for group in GRAPH.prunable_groups}


def counts(kept):
    return [len(kept.get(name, range(width))) for name, width in zip(NAMES, WIDTHS, strict=True)]


def separate(kept):
    """Each group alone decides a part of the time: 10 %, 50 % and none; 40 % stay."""
    a, b, _ = counts(kept)
    return 0.4 + 0.1 * a / 16 + 0.5 * b / 32


def convolutions(kept):
    """Multiply-accumulates, which both sides of a convolution shrink, and a fifth that no channel changes."""
    a, b, c = counts(kept)
    return 0.2 + 0.8 * (3 * a + a * b + b * c + 4 * c) / (3 * 16 + 16 * 32 + 32 * 64 + 4 * 64)


def measured_by(latency):
    return lambda prunings: [latency(kept) for kept in prunings]


def reach_by(ratio, latency, allocation="uniform"):
    """What is kept, the fraction that is removed, and the number of measurements."""
    measured = []

    def measure(prunings):
        measured.extend(prunings)
        return [latency(kept) for kept in prunings]

    def allocated(cost):
        return allocate(GRAPH, SCORES, None, ratio, allocation=allocation, cost=cost, total=1.0, cost_name="latency")

    return *reach(ratio, profile(GRAPH, measured_by(latency)), allocated, measure), len(measured)


def test_a_profile_knows_what_each_group_saves():
    cost = profile(GRAPH, measured_by(separate))
    assert cost.savings[NAMES[0]] == pytest.approx({16: 0, 8: 0.05, 1: 0.1 * 15 / 16})
    assert cost.saving_groups() == NAMES[:2]  # the third group saves nothing
    assert cost({NAMES[1]: range(16)}) == pytest.approx(0.75, abs=0.03)
    assert cost({NAMES[1]: range(24)}) == pytest.approx(0.875, abs=0.03)  # between what was measured
    deepest = {name: range(1) for name in NAMES}
    assert cost(deepest) == pytest.approx(separate(deepest))


def test_an_auxiliary_heads_channels_are_not_timed():
    class WithHead(Convolutions):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.Conv2D(16, 8, 1), nn.Conv2D(8, 4, 1))

        def forward(self, x):
            logits = [super().forward(x)]
            return [*logits, self.head(self.layers[0](x))] if self.training else logits

    graph, timed = ChannelGraph.trace(WithHead(), (1, 3, 8, 8)), []
    profile(graph, lambda prunings: timed.extend(prunings) or [1.0 for _ in prunings])
    alone = {name for kept in timed if len(kept) == 1 for name in kept}
    assert {group.name for group in graph.prunable_groups} - alone == {"head.0"}


@pytest.mark.parametrize("latency", [separate, convolutions])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_the_latency_asked_for_is_reached(latency, ratio):
    kept, removed, measurements = reach_by(ratio, latency)
    assert removed == 1 - latency(kept) == pytest.approx(ratio, abs=0.02)
    assert measurements <= 5


def test_a_global_allocation_takes_no_channel_that_saves_no_time():
    kept, _, _ = reach_by(0.3, separate, "global")
    assert len(kept[NAMES[2]]) == 64
    assert counts(kept)[1] < 24


def test_shares_are_those_that_theory_gives():
    kept, _, _ = reach_by(0.3, separate)  # 0.6 x share is 0.3
    shares = [count / width for count, width in zip(counts(kept), WIDTHS, strict=True)]
    assert shares == pytest.approx([0.5] * 3, abs=0.07)


def test_what_cannot_be_reached_names_the_most():
    with pytest.raises(UserError, match=r"0.700 of the latency.* 0.5\d\d"):
        reach_by(0.7, separate)


def test_a_machine_that_differs_from_its_profile_ends_with_a_warning(caplog):
    cost = profile(GRAPH, measured_by(separate))
    kept, removed = reach(
        0.3,
        cost,
        lambda cost: allocate(GRAPH, SCORES, None, 0.3, cost=cost, total=1.0),
        lambda prunings: [0.95 for _ in prunings],
    )
    assert removed == pytest.approx(0.05) and kept
    assert "0.300" in caplog.text and "0.050 is the closest" in caplog.text


def test_a_pruned_network_is_measured_against_the_baseline_and_saved(tmp_path):
    cost = profile(GRAPH, lambda prunings: [0.8 * separate(kept) for kept in prunings])
    assert cost({}) == pytest.approx(0.8)
    cost.save(tmp_path)
    assert LatencyCost.load(tmp_path) == cost
