import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segslim.deployment.convertible.adaptive_pooling import averaging_matrix, inexact_adaptive_pooling_replaced
from tests.deployment.networks import nn, paddle, random_images

numbers = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(height=numbers, width=numbers, bins=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_replacement_equals_adaptive_average_pooling(height: int, width: int, bins: tuple[int, int]) -> None:
    images = paddle.to_tensor(random_images(1, 2, height, width))
    expected = nn.functional.adaptive_avg_pool2d(images, bins)
    with inexact_adaptive_pooling_replaced():
        pooled = nn.functional.adaptive_avg_pool2d(images, list(bins))
    assert np.allclose(pooled.numpy(), expected.numpy(), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(size=numbers, bins=numbers)
def test_matrix_of_tensors_equals_matrix_of_numbers(size: int, bins: int) -> None:
    dynamic = averaging_matrix(paddle.to_tensor(size), paddle.to_tensor(bins))
    fixed = averaging_matrix(size, bins)
    assert np.array_equal(dynamic.numpy(), fixed.numpy())
    assert np.allclose(fixed.numpy().sum(0), 1)


def test_none_leaves_an_axis_as_it_is() -> None:
    images = paddle.to_tensor(random_images(1, 2, 7, 9))
    expected = nn.functional.adaptive_avg_pool2d(images, (None, 4))
    with inexact_adaptive_pooling_replaced():
        pooled = nn.functional.adaptive_avg_pool2d(images, (None, 4))
    assert np.allclose(pooled.numpy(), expected.numpy(), atol=1e-6)
