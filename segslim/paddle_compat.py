"""Workarounds for defects of Paddle and PaddleSeg that several rooms meet: for which versions, and when each can go."""

import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def import_paddle() -> ModuleType:
    """Imports Paddle after zlib has been used once.

    Paddle 2.6.2 loads its own zlib symbols globally, and where Python's zlib is a shared module its first use after
    that crashes (SIGSEGV in `inflateReset2`). It can go with Paddle 2.6: `import paddle, sklearn` then no longer
    crashes on such a Python.
    """
    zlib.decompress(zlib.compress(b""))
    with warnings.catch_warnings():
        # Paddle 3.3 warns everyone of what only those miss who compile extensions for it
        warnings.filterwarnings("ignore", message="No ccache found")
        import paddle

    return paddle


def import_paddleseg() -> ModuleType:
    """Imports PaddleSeg, and has its messages go to the logger "paddleseg".

    PaddleSeg 2.8.0 prints what it logs, to the standard output. It can go when `paddleseg.utils.logger` uses `logging`.
    """
    import_paddle()
    import paddleseg.models
    import paddleseg.utils.logger

    levels = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)

    def log(level: int = 2, message: str = "") -> None:
        logging.getLogger("paddleseg").log(levels[level], "%s", message)

    paddleseg.utils.logger.log = log
    return paddleseg


@contextmanager
def products_of_integers_and_floats() -> Iterator[None]:
    """Within it, `a * b` casts `b` to the type of `a` where one holds floats and the other integers or booleans.

    Paddle up to 3.0 did so always, and PaddleSeg 2.8.0's losses (CrossEntropyLoss, RMILoss) count on it; Paddle 3.3.1
    raises a TypeError ("Type promotion only support ..."). It can go when `paddleseg.models.CrossEntropyLoss()` takes
    a label of int64.
    """
    paddle = import_paddle()
    types: list[Any] = [paddle.Tensor]
    if hasattr(paddle, "pir"):  # what stands for a tensor while Paddle 3 traces
        types.append(paddle.pir.Value)
    originals = [(kind, kind.__mul__) for kind in types]
    for kind, multiply in originals:
        kind.__mul__ = _casting(multiply, tuple(types), paddle)
    try:
        yield
    finally:
        for kind, multiply in originals:
            kind.__mul__ = multiply


def _casting(
    multiply: Callable[[Any, Any], Any], types: tuple[Any, ...], paddle: ModuleType
) -> Callable[[Any, Any], Any]:
    def product(left: Any, right: Any) -> Any:
        if isinstance(right, types) and paddle.is_floating_point(left) != paddle.is_floating_point(right):
            right = right.astype(left.dtype)
        return multiply(left, right)

    return product
