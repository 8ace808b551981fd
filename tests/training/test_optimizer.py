from typing import Any

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.training.losses import build_losses, segmentation_loss
from segslim.training.options import FitOptions, learning_rate
from segslim.training.sgd import Sgd
from tests.training.toy import CROSS_ENTROPY, paddle, toy_batch, toy_network

OPTIONS = FitOptions(iters=4, learning_rate=0.5, momentum=0.9, weight_decay=0.1)
LOSSES = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0]})


class OneLayer(paddle.nn.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 2, 1, bias_attr=False)

    def forward(self, image: Any) -> list[Any]:
        return [self.conv(image)]


def _gradient(network: OneLayer, batch: dict[str, np.ndarray]) -> np.ndarray:
    segmentation_loss(network(paddle.to_tensor(batch["img"])), paddle.to_tensor(batch["label"]), LOSSES).backward()
    gradient = network.conv.weight.grad.numpy().copy()
    network.clear_gradients()
    return gradient


def test_steps_are_sgd_with_momentum_and_weight_decay() -> None:
    """v = m v + (g + d w), w = w - rate v, as SGD with momentum is written in the literature."""
    network, twin = OneLayer(), OneLayer()
    twin.conv.weight.set_value(network.conv.weight.numpy())
    sgd, velocity = Sgd(network, LOSSES, OPTIONS), 0.0
    for iteration in range(4):
        sgd.step(toy_batch(iteration), iteration)
        weight = twin.conv.weight.numpy()
        velocity = 0.9 * velocity + _gradient(twin, toy_batch(iteration)) + 0.1 * weight
        twin.conv.weight.set_value(weight - np.float32(learning_rate(iteration, OPTIONS)) * velocity)
    np.testing.assert_allclose(network.conv.weight.numpy(), twin.conv.weight.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sgd.velocity()["conv.weight"], velocity, rtol=1e-4, atol=1e-6)


def test_second_optimizer_of_a_network_starts_without_momentum() -> None:
    network = OneLayer()
    Sgd(network, LOSSES, OPTIONS).step(toy_batch(0), 0)
    weight, again = network.conv.weight.numpy().copy(), Sgd(network, LOSSES, OPTIONS)
    gradient = _gradient(network, toy_batch(1))
    again.step(toy_batch(1), 1)
    np.testing.assert_allclose(again.velocity()["conv.weight"], gradient + 0.1 * weight, rtol=1e-4, atol=1e-6)


def test_momentum_is_restored_by_name_in_the_state_dict() -> None:
    networks = [toy_network(), toy_network()]
    losses = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0, 0.4]})
    for network in networks:
        network.train()
    first, second = (Sgd(network, losses, OPTIONS) for network in networks)
    first.step(toy_batch(0), 0)
    for (_, tensor), (_, source) in zip(
        networks[1].state_dict().items(), networks[0].state_dict().items(), strict=True
    ):
        tensor.set_value(source.numpy())
    second.restore(first.velocity(), first.scaler_state())
    assert first.step(toy_batch(1), 1) == second.step(toy_batch(1), 1)
    assert first.velocity().keys() == {f"{at}.{kind}" for at in _LAYERS for kind in ("weight", "bias")}
    for name, array in first.velocity().items():
        np.testing.assert_array_equal(array, second.velocity()[name])


_LAYERS = ("stem.0", "stem.1", "head", "auxiliary")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_loss_that_is_no_number_is_told_and_changes_no_parameter(bad: float) -> None:
    network = OneLayer()
    before, batch = network.conv.weight.numpy().copy(), toy_batch(0)
    batch["img"][0, 0, 0, 0] = bad
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) at iteration 3: give a lower learning_rate \(it is 0.5\)"
    ):
        Sgd(network, LOSSES, OPTIONS).step(batch, 2)
    np.testing.assert_array_equal(network.conv.weight.numpy(), before)
