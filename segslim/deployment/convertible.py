"""Operators that paddle2onnx gets wrong or does not know, traced as equal ones that it converts.

Each replacement holds for paddle2onnx 1.3.1 and 2.1.0, and says when it can go.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle, patched

Function = Callable[..., Any]
#: By the name of the function in `paddle.nn.functional` that it stands in for, whose original it takes first.
REPLACEMENTS: dict[str, Function] = {}
_masks: list[Any] = []  # of `pool_with_places`: indices within a window, 0 to 3, where Paddle's count within the image


@contextmanager
def convertible_operators() -> Iterator[None]:
    """Within it a network is traced with the replacements."""
    functional = import_paddle().nn.functional
    with ExitStack() as patches:
        for path, replacement in REPLACEMENTS.items():
            module, _, name = path.rpartition(".")
            owner = getattr(functional, module) if module else functional
            patches.enter_context(patched(owner, name, _replaced(getattr(owner, name), replacement)))
        patches.callback(_masks.clear)
        yield


def _replaced(original: Function, replacement: Function) -> Function:
    def call(*arguments: Any, **options: Any) -> Any:
        return replacement(original, *arguments, **options)

    return import_paddle().jit.not_to_static(call)


def _in_place_of(path: str) -> Callable[[Function], Function]:
    return lambda replacement: REPLACEMENTS.setdefault(path, replacement)


@_in_place_of("adaptive_avg_pool2d")
def average_by_matrices(
    original: Function, x: Any, output_size: Any, data_format: str = "NCHW", name: str | None = None
) -> Any:
    """Products with averaging matrices, exact at every size.

    paddle2onnx turns adaptive average pooling into AveragePool with one kernel size for all bins, which is wrong where
    the size is no multiple of the bins (PSPNet at 256 x 256: 0.027 of the output's scale), and aborts where the size is
    dynamic. It can go when PSPNet exported without it, at 100 x 140 and with dynamic size, passes the export's check.
    """
    bins = list(output_size) if isinstance(output_size, list | tuple) else [output_size, output_size]
    if data_format != "NCHW" or all(_converts_exactly(x.shape[2 + axis], bins[axis]) for axis in (0, 1)):
        return original(x, output_size, data_format, name)
    return _transpose_and_average(_transpose_and_average(x, bins[0]), bins[1])


@_in_place_of("adaptive_max_pool2d")
def largest_by_windows(
    original: Function, x: Any, output_size: Any, return_mask: bool = False, name: str | None = None
) -> Any:
    """The largest of gathered windows, exact at every size.

    paddle2onnx makes MaxPool with one kernel size for all bins of it: wrong where the size is no multiple of the bins
    (RTFormer: 0.17 of the output's scale), and the end of the process (SIGFPE) where there are more bins than
    positions. It can go when RTFormer exported without it, at 64 x 64, passes the export's check.
    """
    bins = list(output_size) if isinstance(output_size, list | tuple) else [output_size, output_size]
    if return_mask or all(_converts_exactly(x.shape[2 + axis], bins[axis]) for axis in (0, 1)):
        return original(x, output_size, return_mask, name)
    for axis in (2, 3):
        if bins[axis - 2] is not None:
            x = _largest_of_windows(x, axis, bins[axis - 2])
    return x


def _largest_of_windows(x: Any, axis: int, bins: int) -> Any:
    """The largest along `axis` of positions floor(i * size / bins) to ceil((i + 1) * size / bins), for every bin i."""
    paddle = import_paddle()
    size = x.shape[axis]
    if size > 0:
        starts, ends = np.arange(bins) * size // bins, -(-(np.arange(bins) + 1) * size // bins)
        longest = int((ends - starts).max())
        # a shorter window repeats its last position
        positions = np.minimum(starts[:, None] + np.arange(longest), ends[:, None] - 1)
        indices = paddle.to_tensor(positions.ravel().astype(np.int64))
    else:
        size = paddle.shape(x)[axis].astype("int64")
        steps = paddle.arange(0, bins, 1, dtype="int64")
        starts, ends = steps * size // bins, ((steps + 1) * size + bins - 1) // bins
        longest = (size + bins - 1) // bins + 1
        window = paddle.arange(0, longest, 1, dtype="int64").reshape([1, -1])
        indices = paddle.minimum(starts.reshape([-1, 1]) + window, ends.reshape([-1, 1]) - 1).reshape([-1])
    gathered = paddle.gather(x, indices, axis=axis)
    shape = [0, 0, bins, -1, x.shape[3]] if axis == 2 else [0, 0, x.shape[2], bins, -1]
    if axis == 2 and shape[-1] < 0:  # the other size is unknown, too
        shape = [0, 0, bins, longest, -1]
    if axis == 3 and shape[2] < 0:
        shape = [0, 0, 0, bins, longest]
    return gathered.reshape(shape).max(axis + 1)


def _converts_exactly(size: int, bins: Any) -> bool:
    """True for global pooling and for bins of one size, which become GlobalAveragePool and AveragePool."""
    return isinstance(bins, int) and (bins == 1 or (size > 0 and size % bins == 0))


def _transpose_and_average(x: Any, bins: Any) -> Any:
    """N,C,A,B to N,C,B,`bins`: the last two axes exchanged, and A averaged; None for `bins` averages nothing."""
    paddle = import_paddle()
    # In this order, because Paddle Inference 2.6.2 misreads what a convolution of oneDNN gives where a product with a
    # constant comes straight after it.
    x = paddle.transpose(x, [0, 1, 3, 2])
    if bins is None:
        return x
    size = x.shape[3] if x.shape[3] > 0 else paddle.shape(x)[3].astype("int64")
    return paddle.matmul(x, averaging_matrix(size, bins))


def averaging_matrix(size: Any, bins: Any) -> Any:
    """float32 [size, bins] that averages positions floor(i * size / bins) to ceil((i + 1) * size / bins) into bin i.

    `size` and `bins` are numbers, for a constant, or 0-D integer tensors.
    """

    def overlap(positions: Any, indices: Any) -> Any:
        # bounds multiplied by `bins`: there is no division to round
        scaled_positions, starts = positions.reshape([-1, 1]) * bins, indices.reshape([1, -1]) * size
        return ((scaled_positions > starts - bins) & (scaled_positions < starts + size)).astype("float32")

    paddle = import_paddle()
    if isinstance(size, int) and isinstance(bins, int):
        constant = overlap(np.arange(size), np.arange(bins))
        return paddle.to_tensor(constant / constant.sum(0, keepdims=True))
    weights = overlap(*(paddle.arange(0, end, 1, dtype="int64") for end in (size, bins)))
    return weights / weights.sum(0, keepdim=True)


@_in_place_of("max_pool2d")
def pool_with_places(
    original: Function,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    return_mask: bool = False,
    **options: Any,
) -> Any:
    """With `return_mask`, windows of 2 x 2 side by side in an image of a known size, by operators of ONNX.

    paddle2onnx knows no `unpool`: ENet and SegNet, which have such windows, could not be exported. This and
    `unpool_by_places` can go when SegNet exported without them passes the export's check.
    """
    plain = not options.get("ceil_mode") and options.get("data_format", "NCHW") == "NCHW"
    known = plain and min(x.shape[2:]) > 1
    if not return_mask or not _side_by_side(kernel_size, stride, padding) or not known:
        return original(x, kernel_size, stride, padding, return_mask=return_mask, **options)
    height, width = (size // 2 for size in x.shape[2:])
    if [2 * height, 2 * width] != list(x.shape[2:]):  # an odd size's last row or column is in no window
        x = x[:, :, : 2 * height, : 2 * width]
    windows = x.reshape([0, 0, height, 2, width, 2]).transpose([0, 1, 2, 4, 3, 5]).reshape([0, 0, 0, 0, 4])
    _masks.append(import_paddle().argmax(windows, -1))
    return windows.max(-1), _masks[-1]


@_in_place_of("max_unpool2d")
def unpool_by_places(
    original: Function, x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any
) -> Any:
    if not any(indices is mask for mask in _masks) or not _side_by_side(kernel_size, stride, padding):
        return original(x, indices, kernel_size, stride, padding, **options)
    size = [2 * side for side in x.shape[2:]]
    wanted = (options.get("output_size") or size)[-2:]
    below, right = (int(side) - covered for side, covered in zip(wanted, size, strict=True))
    is_largest = indices.unsqueeze(-1) == import_paddle().arange(0, 4, 1, dtype="int64")
    windows = (x.unsqueeze(-1) * is_largest.astype(x.dtype)).reshape([0, 0, 0, 0, 2, 2])
    whole = windows.transpose([0, 1, 2, 4, 3, 5]).reshape([0, 0, *size])
    return import_paddle().nn.functional.pad(whole, [0, right, 0, below]) if below or right else whole


def _side_by_side(kernel_size: Any, stride: Any, padding: Any) -> bool:
    return kernel_size in (2, (2, 2), [2, 2]) and stride in (None, 2, (2, 2), [2, 2]) and padding in (0, (0, 0), [0, 0])


@_in_place_of("conv2d_transpose")
def transpose_to_size(
    original: Function, x: Any, weight: Any, *arguments: Any, output_size: Any = None, **options: Any
) -> Any:
    """With the `output_padding` that gives `output_size`, where sizes are known.

    paddle2onnx drops the output size: ENet's logits came out one pixel short. It can go when ENet exported without it
    passes the export's check.
    """
    wanted = output_size if isinstance(output_size, list | tuple) else None
    if wanted and all(isinstance(size, int) for size in (*wanted, *x.shape[2:])) and min(x.shape[2:]) > 0:
        without = original(x, weight, *arguments, **options).shape[2:]
        options["output_padding"] = [size - less for size, less in zip(wanted, without, strict=True)]
        output_size = None
    return original(x, weight, *arguments, output_size=output_size, **options)


@_in_place_of("conv._conv_nd")
def pad_by_numbers(original: Function, x: Any, weight: Any, *arguments: Any, **options: Any) -> Any:
    """With the numbers that padding "SAME" stands for, where the size is known or the stride is 1.

    With it Paddle takes every dilation for 1; paddle2onnx refuses the two together. It can go when ESPNetV2 is exported
    without it.
    """
    given = inspect.signature(original).bind(x, weight, *arguments, **options).arguments
    stride, sizes = given.get("stride", 1), x.shape[2:]
    strides = list(stride) if isinstance(stride, list | tuple) else [stride] * len(sizes)
    known = all(step == 1 or size > 0 for step, size in zip(strides, sizes, strict=True))
    if given.get("padding_algorithm") != "SAME" or given.get("channel_dim", 1) != 1 or not known:
        return original(**given)
    padding: list[int] = []
    for size, kernel, step in zip(sizes, weight.shape[2:], strides, strict=True):
        total = kernel - 1 if step == 1 else max((-(-size // step) - 1) * step + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return original(**{**given, "padding": padding, "padding_algorithm": "EXPLICIT", "dilation": [1] * len(sizes)})
