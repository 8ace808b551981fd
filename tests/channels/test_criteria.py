import numpy as np
import pytest

from segslim.channels import ChannelGraph
from segslim.channels.scores import score
from segslim.errors import UserError
from tests.channels.small import Chain

GRAPH = ChannelGraph.trace(Chain(), (1, 3, 8, 8))


def test_l1_norm_orders_channels_by_the_size_of_their_filters():
    weights = {"first.weight": np.arange(1, 9).reshape(8, 1, 1, 1) * np.array([1, -1, 1]).reshape(1, 3, 1, 1)}
    scores = score("l1_norm", GRAPH, weights)
    np.testing.assert_allclose(scores["first"], np.arange(1, 9) / 4.5)


def test_an_unknown_criterion_is_refused():
    with pytest.raises(UserError, match="criterion 'l3_norm' is unknown: choose from l1_norm"):
        score("l3_norm", GRAPH, {})
