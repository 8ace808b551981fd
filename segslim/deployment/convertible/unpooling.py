"""Max pooling with indices, and unpooling by them, of operators that can be converted to ONNX."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from segslim.paddle_compat import import_paddle

paddle = import_paddle()


@contextmanager
def unconvertible_unpooling_replaced() -> Iterator[None]:
    """While it lasts, `F.max_pool2d(..., return_mask=True)` and `F.max_unpool2d` trace operators that ONNX has.

    paddle2onnx 1.3.1 and 2.1.0 know no `unpool`, so ENet and SegNet could not be exported. Windows of 2 x 2 side by
    side in an image of a known and even size are replaced, as these networks have them; others are left. The indices
    count within a window then (0 to 3), and fit these two functions only. It can go when SegNet exported without it
    passes the export's check.
    """
    functional = paddle.nn.functional
    pool, unpool = functional.max_pool2d, functional.max_unpool2d
    functional.max_pool2d = _pool(pool)
    functional.max_unpool2d = _unpool(unpool)
    try:
        yield
    finally:
        functional.max_pool2d, functional.max_unpool2d = pool, unpool


def _pool(original: Callable[..., Any]) -> Callable[..., Any]:
    @paddle.jit.not_to_static
    def max_pool2d(
        x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, return_mask: bool = False, **options: Any
    ) -> Any:
        if not return_mask or not _side_by_side(kernel_size, stride, padding) or not _known_and_even(x):
            return original(x, kernel_size, stride, padding, return_mask=return_mask, **options)
        windows = (
            x.reshape([0, 0, x.shape[2] // 2, 2, x.shape[3] // 2, 2])
            .transpose([0, 1, 2, 4, 3, 5])
            .reshape([0, 0, 0, 0, 4])
        )
        return windows.max(-1), paddle.argmax(windows, -1)

    return max_pool2d


def _unpool(original: Callable[..., Any]) -> Callable[..., Any]:
    @paddle.jit.not_to_static
    def max_unpool2d(
        x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any
    ) -> Any:
        if not _side_by_side(kernel_size, stride, padding) or min(x.shape[2:]) < 0:
            return original(x, indices, kernel_size, stride, padding, **options)
        chosen = (indices.unsqueeze(-1) == paddle.arange(0, 4, 1, dtype="int64")).astype(x.dtype)
        windows = (x.unsqueeze(-1) * chosen).reshape([0, 0, 0, 0, 2, 2]).transpose([0, 1, 2, 4, 3, 5])
        return windows.reshape([0, 0, x.shape[2] * 2, x.shape[3] * 2])

    return max_unpool2d


def _side_by_side(kernel_size: Any, stride: Any, padding: Any) -> bool:
    return kernel_size in (2, (2, 2), [2, 2]) and stride in (None, 2, (2, 2), [2, 2]) and padding in (0, (0, 0), [0, 0])


def _known_and_even(x: Any) -> bool:
    return all(size > 0 and size % 2 == 0 for size in x.shape[2:])
