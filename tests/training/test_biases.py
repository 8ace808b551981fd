"""Convolutions whose bias is added by the kernel of batch norm give what Paddle's own give."""

import numpy as np
import pytest

from segslim.paddle_compat import biases_added_by_channel, import_paddle

paddle = import_paddle()
nn = paddle.nn


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2D(4, 6, 3, stride=2, padding=1),
        nn.Conv2D(4, 8, 3, groups=4),
        nn.Conv2D(4, 6, 1, bias_attr=False),
        nn.Conv2D(4, 6, 3, data_format="NHWC"),
        nn.Conv2DTranspose(4, 6, 2, stride=2),
    ],
    ids=["plain", "depthwise", "no bias", "NHWC", "transposed"],
)
def test_sums_are_the_same_bit_for_bit_and_gradients_but_for_rounding(layer):
    if layer.bias is not None:
        layer.bias.set_value(np.random.default_rng(1).normal(size=layer.bias.shape).astype(np.float32))
    shape = (2, 4, 9, 11) if layer._data_format == "NCHW" else (2, 9, 11, 4)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    usual = _run(layer, image)
    with biases_added_by_channel():
        ours = _run(layer, image)
        function = _by_function(layer, image)
    np.testing.assert_array_equal(ours[0], usual[0])
    np.testing.assert_array_equal(function, usual[0])
    for found, expected in zip(ours[1:], usual[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(_run(layer, image)[0], usual[0])  # and it is as it was afterwards


def _by_function(layer, image):
    convolve = nn.functional.conv2d_transpose if isinstance(layer, nn.Conv2DTranspose) else nn.functional.conv2d
    options = {"stride": layer._stride, "groups": layer._groups, "data_format": layer._data_format}
    return convolve(paddle.to_tensor(image), layer.weight, layer.bias, padding=layer._padding, **options).numpy()


def _run(layer, image):
    given = paddle.to_tensor(image, stop_gradient=False)
    output = layer(given)
    (output * output).sum().backward()
    found = [output.numpy(), given.grad.numpy(), *(parameter.grad.numpy() for parameter in layer.parameters())]
    layer.clear_gradients()
    return found
