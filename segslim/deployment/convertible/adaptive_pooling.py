"""Adaptive average pooling that survives the conversion to ONNX, at every size, fixed or dynamic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle

paddle = import_paddle()


@contextmanager
def inexact_adaptive_pooling_replaced() -> Iterator[None]:
    """While it lasts, `F.adaptive_avg_pool2d` traces operators that paddle2onnx converts exactly.

    paddle2onnx 1.3.1 and 2.1.0 turn adaptive average pooling into AveragePool with one kernel size for all bins, which
    is wrong where the size is no multiple of the bins (PSPNet at 256 x 256: 0.027 of the output's scale), and abort
    where the size is dynamic. It can go when PSPNet exported without it, at 100 x 140 and with dynamic size, passes the
    export's check.
    """
    functional = paddle.nn.functional
    original = functional.adaptive_avg_pool2d
    functional.adaptive_avg_pool2d = _exact(original)
    try:
        yield
    finally:
        functional.adaptive_avg_pool2d = original


def _exact(original: Callable[..., Any]) -> Callable[..., Any]:
    @paddle.jit.not_to_static
    def adaptive_avg_pool2d(x: Any, output_size: Any, data_format: str = "NCHW", name: str | None = None) -> Any:
        bins = list(output_size) if isinstance(output_size, list | tuple) else [output_size, output_size]
        if data_format != "NCHW" or all(_converts_exactly(x.shape[2 + axis], bins[axis]) for axis in (0, 1)):
            return original(x, output_size, data_format, name)
        return _turn_and_average(_turn_and_average(x, bins[0]), bins[1])

    return adaptive_avg_pool2d


def _turn_and_average(x: Any, bins: Any) -> Any:
    """N,C,A,B to N,C,B,`bins`: the last two axes exchanged, and A averaged.

    In this order, because Paddle Inference 2.6.2 misreads what a convolution of oneDNN gives where a product with a
    constant comes straight after it.
    """
    x = paddle.transpose(x, [0, 1, 3, 2])
    return x if bins is None else paddle.matmul(x, averaging_matrix(_size(x, 3), bins))


def _converts_exactly(size: int, bins: Any) -> bool:
    """True for global pooling and for bins of one size, which become GlobalAveragePool and AveragePool."""
    return isinstance(bins, int) and (bins == 1 or (size > 0 and size % bins == 0))


def _size(x: Any, axis: int) -> Any:
    return x.shape[axis] if x.shape[axis] > 0 else paddle.shape(x)[axis].astype("int64")


def averaging_matrix(size: Any, bins: Any) -> Any:
    """float32 [size, bins] that averages position floor(i * size / bins) to ceil((i + 1) * size / bins) into bin i.

    `size` and `bins` are numbers, for a constant, or 0-D integer tensors. The bounds are multiplied out by `bins`, so
    that there is no division to round.
    """
    if isinstance(size, int) and isinstance(bins, int):
        weights = _inside(np.arange(size), np.arange(bins), size, bins).astype("float32")
        return paddle.to_tensor(weights / weights.sum(0, keepdims=True))
    positions, indices = (paddle.arange(0, end, 1, dtype="int64") for end in (size, bins))
    weights = _inside(positions, indices, size, bins).astype("float32")
    return weights / weights.sum(0, keepdim=True)


def _inside(positions: Any, indices: Any, size: Any, bins: Any) -> Any:
    scaled_positions = positions.reshape([-1, 1]) * bins
    starts = indices.reshape([1, -1]) * size
    return (scaled_positions > starts - bins) & (scaled_positions < starts + size)
