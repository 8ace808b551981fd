"""The batch norm of several processes, in one: against Paddle's own."""

from typing import Any

import numpy as np
import pytest

from segslim.paddle_compat import import_paddle
from segslim.training.process_group import ProcessGroup
from segslim.training.synchronized import synchronized

paddle = import_paddle()
nn = paddle.nn
LAYERS = {
    "2-d": lambda: nn.BatchNorm2D(3, momentum=0.7, epsilon=1e-3),
    "without scale and shift": lambda: nn.BatchNorm2D(3, weight_attr=False, bias_attr=False),
    "of vectors": lambda: nn.BatchNorm1D(3),
    "with an activation": lambda: nn.BatchNorm(3, act="relu"),
}


def _trained(layer: Any, features: np.ndarray, learns: bool, together: bool) -> list[np.ndarray]:
    """The output, the gradients of all that has one, and the running statistics, after one step."""
    given = paddle.to_tensor(features, stop_gradient=not learns)
    weights = [weight for weight in (layer.weight, layer.bias) if weight is not None and not weight.stop_gradient]
    for weight, value in zip(weights, (0.5, 2.0), strict=False):
        weight.set_value(np.full(3, value, np.float32))
    if together:
        with synchronized(layer, ProcessGroup()):
            output = layer(given)
    else:
        output = layer(given)
    loss = (output * paddle.to_tensor(np.cos(features))).sum()
    if not loss.stop_gradient:
        loss.backward()
    gradients = [tensor.grad for tensor in (given, *weights) if tensor.grad is not None]
    return [tensor.numpy() for tensor in (output, *gradients, layer._mean, layer._variance)]


@pytest.mark.parametrize("learns", [True, False], ids=["after a layer", "of the image"])
@pytest.mark.parametrize("name", LAYERS)
def test_batch_norm_is_paddles(name: str, learns: bool) -> None:
    shape = (8, 3) if name == "of vectors" else (4, 3, 6, 5)
    features = np.random.default_rng(0).normal(5.0, 2.0, shape).astype(np.float32)
    ours, paddles = (_trained(LAYERS[name](), features, learns, together) for together in (True, False))
    assert len(ours) == len(paddles)
    for array, expected in zip(ours, paddles, strict=True):
        np.testing.assert_allclose(array, expected, rtol=2e-4, atol=2e-5)


def test_layers_and_functions_are_as_they_were_afterwards() -> None:
    layer, dropout = nn.BatchNorm2D(3), nn.functional.dropout
    with pytest.raises(RuntimeError), synchronized(layer, ProcessGroup()):
        assert "forward" in vars(layer) and nn.functional.dropout is not dropout
        raise RuntimeError
    assert "forward" not in vars(layer) and nn.functional.dropout is dropout
