import numpy as np
import pytest

from segslim.training.gradients import gradients
from segslim.training.losses import Losses, build_losses, segmentation_loss
from tests.training.toy import CROSS_ENTROPY, paddle, toy_batch, toy_network

LOSSES = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0, 0.4]})


def weights(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def main_loss(network, batch):
    network.eval()
    image, label = (paddle.to_tensor(batch[key]) for key in ("img", "label"))
    return float(segmentation_loss(network(image), label, Losses(LOSSES.types[:1], LOSSES.coef[:1])))


def test_gradient_times_weight_is_what_the_loss_changes_by_at_first_order():
    network, batch = toy_network(), toy_batch(0)
    before, (found,) = main_loss(network, batch), gradients(network, [batch], LOSSES)
    head = network.state_dict()["head.weight"]
    for channel in range(8):
        dense, step = head.numpy().copy(), 0.02
        closed = dense.copy()
        closed[:, channel] *= 1 - step
        head.set_value(closed)
        change = (main_loss(network, batch) - before) / -step
        head.set_value(dense)
        assert change == pytest.approx((found["head.weight"] * dense)[:, channel].sum(), abs=2e-3)


def test_the_network_and_its_statistics_stay_and_each_batch_has_gradients_of_its_own():
    network = toy_network()
    network.train()
    before = weights(network)
    one, two = gradients(network, [toy_batch(0), toy_batch(1)], LOSSES)
    (again,) = gradients(network, [toy_batch(1)], LOSSES)
    assert all((before[name] == value).all() for name, value in weights(network).items())
    assert not np.allclose(one["stem.0.weight"], two["stem.0.weight"])
    assert all((again[name] == value).all() for name, value in two.items())  # nothing is drawn, nothing adds up


def test_an_auxiliary_head_has_no_gradient():
    (found,) = gradients(toy_network(), [toy_batch(0)], LOSSES)
    assert "head.weight" in found and "auxiliary.weight" not in found
