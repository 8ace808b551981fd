"""Transposed convolutions that keep the size that they were asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from segslim.paddle_compat import import_paddle

paddle = import_paddle()


@contextmanager
def output_size_replaced() -> Iterator[None]:
    """While it lasts, `F.conv2d_transpose(..., output_size=...)` is traced with the `output_padding` that gives it.

    paddle2onnx 1.3.1 and 2.1.0 drop the output size: ENet's logits came out one pixel short. Sizes that are not known
    are left. It can go when ENet exported without it passes the export's check.
    """
    functional = paddle.nn.functional
    original = functional.conv2d_transpose
    functional.conv2d_transpose = _padded(original)
    try:
        yield
    finally:
        functional.conv2d_transpose = original


def _padded(original: Callable[..., Any]) -> Callable[..., Any]:
    @paddle.jit.not_to_static
    def conv2d_transpose(x: Any, weight: Any, *arguments: Any, output_size: Any = None, **options: Any) -> Any:
        wanted = output_size if isinstance(output_size, list | tuple) else None
        if wanted and all(isinstance(size, int) for size in (*wanted, *x.shape[2:])) and min(x.shape[2:]) > 0:
            usual = original(x, weight, *arguments, **options).shape[2:]
            options["output_padding"] = [size - without for size, without in zip(wanted, usual, strict=True)]
            output_size = None
        return original(x, weight, *arguments, output_size=output_size, **options)

    return conv2d_transpose
