"""Workarounds for defects of Paddle and PaddleSeg that several rooms meet: for which versions, and when each can go."""

import ctypes
import functools
import logging
import re
import signal
import sys
import threading
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def import_paddle() -> ModuleType:
    """Imports Paddle after zlib has been used once.

    Paddle 2.6.2 loads its own zlib symbols globally, and where Python's zlib is a shared module its first use after
    that crashes (SIGSEGV in `inflateReset2`). It can go with Paddle 2.6: `import paddle, sklearn` then no longer
    crashes on such a Python.
    """
    zlib.decompress(zlib.compress(b""))
    if "paddle" in sys.modules:
        return sys.modules["paddle"]
    for needless in ("No ccache found", "When training, we now always track global mean and variance"):
        warnings.filterwarnings("ignore", message=needless)  # at every import, and at every batch norm of every step
    with _handler_of_sigterm_kept():
        import paddle

    return paddle


@contextmanager
def _handler_of_sigterm_kept() -> Iterator[None]:
    """Gives SIGTERM back to who handled it.

    Paddle 2.6.2 and 3.3.1 take it when they are imported, and answer it with a stack trace and a sudden end. It can go
    when a Python handler of SIGTERM that was set before `import paddle` is called after it.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


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
    for module in (paddleseg.models.sfnet.AlignedModule, paddleseg.models.decoupled_segnet.SqueezeBodyEdge):
        _fix_flow_warp(module)
    for transformer in (paddleseg.models.VisionTransformer, paddleseg.models.CAE):
        transformer.init_weight = _load_pretrained
    paddleseg.models.backbones.swin_transformer.BasicLayer.forward = _forward_in_shifted_windows
    paddleseg.models.ccnet.CrissCrossAttention.Inf = _infinity_on_the_diagonal
    _fix_bases(paddleseg.models.layers.nmf_2d.NMF2D)
    paddleseg.models.mscale_ocrnet.MscaleOCRNet.nscale_forward = _forward_of_scales
    _fix_points(paddleseg.models.pointrend.PointHead)
    paddleseg.models.backbones.vit_adapter.deform_inputs = _deform_inputs
    paddleseg.models.layers.ms_deformable_attention.MSDeformAttn.forward = _deformable_attention
    _fix_padding_of_many_channels()
    return paddleseg


def _fix_padding_of_many_channels() -> None:
    """Has transforms that pad take images of more than four channels.

    PaddleSeg 2.8.0 gives OpenCV a number for each channel, and OpenCV takes at most four, which it repeats. It can go
    when `RandomPaddingCrop` pads an image of six channels.
    """
    import cv2
    from paddleseg.transforms import transforms

    def with_plain_value(function: Callable[..., Any], argument: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            value = named.get(argument)
            return function(*given, **({**named, argument: value[:4]} if isinstance(value, tuple) else named))

        return call

    transforms.cv2 = SimpleNamespace(
        **{
            **vars(cv2),
            "copyMakeBorder": with_plain_value(cv2.copyMakeBorder, "value"),
            "warpAffine": with_plain_value(cv2.warpAffine, "borderValue"),
        }
    )


def _fix_flow_warp(module: Any) -> None:
    """Has SFNet and DecoupledSegNet sample along a flow by a grid of floats.

    PaddleSeg 2.8.0 divides the flow, of floats, by a tensor of integers, which Paddle 3 refuses, and paddle2onnx 1.3.1
    converts its grid to what ONNX Runtime does not load. It can go when both are trained and exported without it.
    """
    paddle = import_paddle()
    original = module.flow_warp
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def flow_warp(layer: Any, features: Any, flow: Any, size: Any) -> Any:
        height, width = (flow.shape[axis] if flow.shape[axis] > 0 else paddle.shape(flow)[axis] for axis in (2, 3))
        rows, columns = (
            (paddle.arange(0, end, 1, dtype="int64").astype(flow.dtype) * 2 / (_number(end, flow) - 1) - 1)
            for end in (height, width)
        )
        across = columns.reshape([1, 1, -1]) + flow[:, 0] / _number(width, flow)
        down = rows.reshape([1, -1, 1]) + flow[:, 1] / _number(height, flow)
        return paddle.nn.functional.grid_sample(features, paddle.stack([across, down], axis=-1))

    module.flow_warp = paddle.jit.not_to_static(flow_warp)


def _load_pretrained(transformer: Any) -> None:
    """A vision transformer's `init_weight`, which is left as it was made where `pretrained` is None.

    PaddleSeg 2.8.0 asks os.path.exists(None), a TypeError, and unpickles the file a second time to resize positions
    (which `load_fitting` does). It can go when `paddleseg.models.ViT_small_patch16_224()` can be made.
    """
    import paddleseg.utils.utils

    paddleseg.utils.utils.load_pretrained_model(transformer, transformer.pretrained)


def _forward_in_shifted_windows(stage: Any, x: Any, height: Any, width: Any) -> tuple[Any, ...]:
    """What swin_transformer.BasicLayer.forward computes, with a constant for the mask of its shifted windows.

    PaddleSeg 2.8.0 writes the mask by assignments to slices, which paddle2onnx converts wrongly: Swin was 0.05 to 0.13
    of its output's scale off. It can go when UPerNet on Swin, at 64 x 64, passes the export's check without it.
    """
    paddle, window, shift = import_paddle(), stage.window_size, stage.shift_size
    sides = [-(-int(side) // window) * window for side in (height, width)]
    # 0, 1 or 2 along a side: before the last window, in it, and what is shifted in from the other end
    across, down = (
        (np.arange(side) >= side - window).astype(int) + (np.arange(side) >= side - shift) for side in sides
    )
    regions = (3 * across[:, None] + down[None]).reshape(sides[0] // window, window, sides[1] // window, window)
    windows = regions.transpose(0, 2, 1, 3).reshape(-1, window * window)
    apart = windows[:, None] != windows[:, :, None]
    mask = paddle.to_tensor(np.where(apart, np.float32(-100), np.float32(0)))
    for block in stage.blocks:
        block.H, block.W = height, width
        x = block(x, mask.astype(x.dtype))
    if stage.downsample is None:
        return x, height, width, x, height, width
    return x, height, width, stage.downsample(x, height, width), (height + 1) // 2, (width + 1) // 2


def _infinity_on_the_diagonal(_layer: Any, _batch: Any, height: Any, _width: Any) -> Any:
    """What CCNet's CrissCrossAttention.Inf gives, for any batch; paddle2onnx converts no `diag`.

    It can go when CCNet is exported without it (PaddleSeg 2.8.0, paddle2onnx 2.1.0).
    """
    paddle = import_paddle()
    rows = paddle.arange(0, height, 1, dtype="int64")
    on_it = rows.reshape([1, -1, 1]) == rows.reshape([1, 1, -1])
    return paddle.where(on_it, paddle.full([1], -np.inf), paddle.zeros([1])).astype(paddle.get_default_dtype())


def _fix_bases(module: Any) -> None:
    """Has SegNeXt begin its matrix decomposition at the same bases in every evaluation.

    PaddleSeg 2.8.0 draws new ones for each image: two runs of one network differ in a fifth of the pixels, and so do
    network and export. It can go when two evaluations of SegNeXt on one image are equal.
    """
    original = module._build_bases

    @functools.wraps(original)
    def build_bases(layer: Any, *shape: Any) -> Any:
        batch, groups, channels, rank = shape
        if layer.training or not isinstance(batch, int) or min(shape) < 1:
            return original(layer, *shape)
        paddle = import_paddle()
        drawn = np.random.default_rng(0).random((1, int(channels), int(rank)))
        bases = paddle.to_tensor(np.repeat(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), batch * groups, 0))
        return bases.astype(paddle.get_default_dtype())

    if not hasattr(original, "__wrapped__"):
        module._build_bases = build_bases


def _forward_of_scales(network: Any, inputs: Any, scales: Any) -> list[Any]:
    """What MscaleOCRNet.nscale_forward computes, with scales that are numbers.

    PaddleSeg 2.8.0 makes a tensor of them and branches on its values: neither the channel graph nor ONNX can follow. It
    can go when MscaleOCRNet, in evaluation mode, is traced without it.
    """
    paddle = import_paddle()
    interpolate = functools.partial(paddle.nn.functional.interpolate, mode="bilinear")
    joined: dict[str, Any] = {}
    for scale in sorted(scales, reverse=True):
        outputs = network._fwd(interpolate(inputs, scale_factor=scale))
        attention = outputs["logit_attn"]
        for name in ("pred_out", "aux_out"):
            new, before = outputs[name], joined.get(name)
            if before is None:
                joined[name] = new
            elif scale >= 1:
                joined[name] = attention * new + (1 - attention) * interpolate(before, size=paddle.shape(new)[2:])
            else:
                new, weight = (
                    interpolate(each, size=paddle.shape(before)[2:]) for each in (attention * new, attention)
                )
                joined[name] = new + (1 - weight) * before
    return [joined["aux_out"], joined["pred_out"]] if network.training else [joined["pred_out"]]


def _fix_points(module: Any) -> None:
    """Has PointRend's PointHead count the points to refine by a number.

    PaddleSeg 2.8.0 joins a size of int64 with a number of int32, which Paddle 3 refuses, and takes a tensor's value for
    the number of points, which no trace knows. It can go when PointRend is exported without it.
    """
    original = module.__init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def make(head: Any, *arguments: Any, **named: Any) -> None:
        original(head, *arguments, **named)
        number = int(head.subdivision_num_points)
        del head.subdivision_num_points  # a buffer
        head.subdivision_num_points = number

    module.__init__, module.get_points_test = make, _points_to_refine


def _points_to_refine(head: Any, logits: Any, uncertainty: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What PointHead.get_points_test gives: the most uncertain pixels, N,P, and where they are, N,P,2."""
    paddle = import_paddle()
    height, width = logits.shape[2:]
    number = min(int(height) * int(width), head.subdivision_num_points)
    indices = paddle.topk(uncertainty(logits).flatten(1), number, axis=1)[1]
    across, down = (
        (at.astype(logits.dtype) + 0.5) / side for at, side in ((indices % width, width), (indices // width, height))
    )
    return indices, paddle.stack([across, down], axis=-1)


def _deform_inputs(image: Any) -> tuple[list[Any], list[Any]]:
    """What PaddleSeg's deform_inputs gives (ViTAdapter), with sizes that are numbers, as `_deformable_attention` takes
    them: for each of two directions the points 1,L,1,2 that are asked for, and the (height, width) of the maps asked.
    """
    paddle = import_paddle()
    sizes = [tuple(int(side) // stride for side in image.shape[2:]) for stride in (8, 16, 32)]

    def points(sizes: list[tuple[int, ...]]) -> Any:
        centres = [[(np.arange(side) + 0.5) / side for side in size] for size in sizes]
        grids = [np.stack(np.meshgrid(across, down), -1).reshape(-1, 2) for down, across in centres]
        return paddle.to_tensor(np.concatenate(grids)[None, :, None].astype(np.float32)).astype(image.dtype)

    return [points(sizes[1:2]), sizes, None], [points(sizes), sizes[1:2], None]


def _deformable_attention(
    layer: Any, query: Any, reference_points: Any, values: Any, sizes: Any, _starts: Any, _mask: Any = None
) -> Any:
    """What MSDeformAttn computes (ViTAdapter): of a few points of each map, bilinear, the weighted sum, by grid_sample.

    PaddleSeg 2.8.0 leaves it to an operator for GPUs that is to be built apart, and ends the process where it is not.
    It can go when UPerNetViTAdapter is trained on a CPU without it.

    Args:
        layer: a MSDeformAttn.
        query: N,L,C.
        reference_points: 1,L,1,2, (x, y) in 0..1.
        values: N,S,C, the maps one after the other.
        sizes: (height, width) of each.
    """
    paddle = import_paddle()
    batch, length, _ = query.shape
    heads, points = layer.n_heads, layer.n_points
    value = layer.value_proj(values)
    value = value.reshape([batch, value.shape[1], heads, value.shape[2] // heads]).transpose([0, 2, 3, 1])
    offsets = layer.sampling_offsets(query).reshape([batch, length, heads, len(sizes), points, 2])
    weights = layer.attention_weights(query).reshape([batch, length, heads, len(sizes) * points])
    weights = paddle.nn.functional.softmax(weights, -1).transpose([0, 2, 1, 3])
    sampled, start = [], 0
    for level, (height, width) in enumerate(sizes):
        maps = value[:, :, :, start : start + height * width].flatten(0, 1)
        maps = maps.reshape([maps.shape[0], maps.shape[1], height, width])
        start += height * width
        side = paddle.to_tensor(np.array([width, height], np.float32)).astype(query.dtype)
        at = reference_points.unsqueeze(3) + offsets[:, :, :, level] / side  # N,L,heads,points,2
        grid = (at * 2 - 1).transpose([0, 2, 1, 3, 4]).flatten(0, 1)
        sampled.append(paddle.nn.functional.grid_sample(maps, grid, align_corners=False))
    total = (paddle.concat(sampled, -1) * weights.flatten(0, 1).unsqueeze(1)).sum(-1)  # N*heads,C/heads,L
    return layer.output_proj(total.reshape([batch, heads * total.shape[1], length]).transpose([0, 2, 1]))


def _number(size: Any, like: Any) -> Any:
    return size if isinstance(size, int) else size.astype(like.dtype)


def reason_of(error: BaseException) -> str:
    """Of Paddle's many lines the one that says what was wrong."""
    if "'numpy' only can be called" in str(error):
        return "it computes with numpy on its way (Tensor.numpy()), which no graph holds"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"\w+(Error|Exception): ", line)]
    return (telling or lines or [type(error).__name__])[-1][:300]


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute within the block, and restores it, or its absence, afterwards."""
    present, original = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original) if present else delattr(owner, name)


@contextmanager
def in_modes(network: Any, trains: Callable[[Any], bool]) -> Iterator[None]:
    """Within it a layer is in training mode where `trains` says so, else in evaluation mode; afterwards as it was."""
    before = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    for layer, _ in before:
        layer.training = trains(layer)
    try:
        yield
    finally:
        for layer, training in before:
            layer.training = training


def evaluation_mode(network: Any) -> AbstractContextManager[None]:
    """Within it every layer is in evaluation mode."""
    return in_modes(network, lambda layer: False)


def with_auxiliary_heads(network: Any) -> AbstractContextManager[None]:
    """Within it containers are in training mode, so that auxiliary heads run, and leaves in evaluation mode, so that
    nothing is learned and dropout adds no masks.
    """
    return in_modes(network, lambda layer: bool(list(layer.children())) and not type(layer).__name__.startswith("Drop"))


@contextmanager
def without_diagnostics() -> Iterator[None]:
    """Traces without Paddle's notes for error messages.

    Paddle 2.6.2 and 3.3.1 write the Python stack into every operator, and Paddle 3 lists all operators so far after
    every layer to name them: three quarters of the time for a large network, called from deep within a program. It can
    go when tracing HRNet takes the same time without it.
    """
    layers, extract_stack = import_paddle().nn.layer.layers, traceback.extract_stack
    with ExitStack() as patches:
        patches.enter_context(patched(traceback, "extract_stack", lambda *_, **__: extract_stack(limit=1)))
        if hasattr(layers, "name_struct"):
            patches.enter_context(patched(layers, "name_struct", nullcontext))
        yield


def keep_freed_memory() -> None:
    """Has the C library keep what Paddle frees, for what it allocates next; otherwise it goes to the system and back.

    Paddle's allocator on the CPU asks the system for each tensor's memory, and a fresh page costs more than many an
    operator: a step of Fast-SCNN took 0.96 s of CPU time without this, and 0.82 s with it (Paddle 3.3.1, glibc).
    Results are the same.
    It can go when `FLAGS_allocator_strategy` pools CPU memory.
    """
    if sys.platform == "win32":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        trim_threshold, mmap_max = -1, -4
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_max, 0)


@contextmanager
def biases_added_by_channel() -> Iterator[None]:
    """Within it convolutions add their bias by the kernel of batch norm, which does so channel by channel.

    On the CPU, Paddle 2.6.2 and 3.3.1 add it by broadcasting, which takes several times as long, as does its gradient.
    Sums are the same, bit for bit. It can go when `x + bias.reshape([1, -1, 1, 1])`, with its gradient, takes no longer
    than a batch norm of `x` in evaluation.
    """
    convolution = import_paddle().nn.functional.conv
    with patched(convolution, "_conv_nd", _adding_by_channel(convolution._conv_nd)):
        yield


def _adding_by_channel(original: Callable[..., Any]) -> Callable[..., Any]:
    paddle = import_paddle()

    def convolve(x: Any, weight: Any, bias: Any = None, *options: Any, **named: Any) -> Any:
        channel_dim = named["channel_dim"] if "channel_dim" in named else options[6]  # as layers and functions give it
        usual = bias is None or channel_dim != 1 or x.ndim != 4 or x.dtype != paddle.float32
        sums = original(x, weight, bias if usual else None, *options, **named)
        if usual:
            return sums
        zero, one = zeros_and_ones(bias.shape[0])
        scale = paddle.ones([bias.shape[0]])
        scale.stop_gradient = bias.stop_gradient  # the kernel gives both gradients or none
        return paddle.nn.functional.batch_norm(sums, zero, one, scale, bias, training=False, epsilon=0.0)

    return convolve


@functools.cache
def zeros_and_ones(channels: int) -> tuple[Any, Any]:
    """Statistics of a batch norm that change nothing; to be read alone."""
    paddle = import_paddle()
    return paddle.zeros([channels]), paddle.ones([channels])


@contextmanager
def arithmetic_of_integers_and_floats() -> Iterator[None]:
    """Within it `a + b`, `a - b` and `a * b` cast `b` to the type of `a` where only one of them holds floats.

    Paddle up to 3.0 did so always, and PaddleSeg 2.8.0's losses count on it (CrossEntropyLoss, OhemCrossEntropyLoss,
    RMILoss); Paddle 3.3.1 raises a TypeError ("Type promotion only support ..."). It can go when
    `paddleseg.models.CrossEntropyLoss()` takes a label of int64.
    """
    tensor = import_paddle().Tensor
    with ExitStack() as patches:
        for name in ("__add__", "__sub__", "__mul__"):
            patches.enter_context(patched(tensor, name, _casting(getattr(tensor, name))))
        yield


def _casting(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    paddle = import_paddle()

    def cast_and_operate(left: Any, right: Any) -> Any:
        if isinstance(right, paddle.Tensor) and paddle.is_floating_point(left) != paddle.is_floating_point(right):
            right = right.astype(left.dtype)
        return operator(left, right)

    return cast_and_operate
