"""Batch norm, dropout and losses that see a process's share of a batch, and act as if they saw the whole batch.

So the number of processes changes the order in which floats are summed, and nothing else. Paddle's own SyncBatchNorm
and data-parallel wrapper need NCCL, and average losses that are no means over pixels.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.errors import UserError
from segslim.paddle_compat import import_paddle, zeros_and_ones
from segslim.training.losses import Losses, check_heads, segmentation_loss
from segslim.training.process_group import ProcessGroup


def batch_norms(network: Any) -> list[Any]:
    """Returns the batch norm layers of a network, the network included."""
    nn = import_paddle().nn
    kinds = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)
    return [layer for layer in network.sublayers(include_self=True) if isinstance(layer, kinds)]


def convert_for_gpus(network: Any, group: ProcessGroup) -> None:
    """Puts Paddle's SyncBatchNorm, which runs on GPUs only, in the place of batch norm layers."""
    if group.size > 1 and not group.connections:
        import_paddle().nn.SyncBatchNorm.convert_sync_batchnorm(network)


@contextmanager
def synchronized(network: Any, group: ProcessGroup) -> Iterator[None]:
    """Within it `network`, in training mode, normalizes by the whole batch's statistics, and its dropout draws for it.

    Batch norm's running statistics are the same in every process. Random numbers that a network draws otherwise (drop
    path) are those of the share.
    """
    nn = import_paddle().nn
    layers = [
        layer
        for layer in batch_norms(network)
        if layer.training and not layer._use_global_stats and not isinstance(layer, nn.SyncBatchNorm)
    ]
    dropouts = {name: getattr(nn.functional, name) for name in ("dropout", "dropout2d", "dropout3d")}
    for layer in layers:
        layer.__dict__["forward"] = functools.partial(_normalize, layer, group)
    for name, original in dropouts.items():
        setattr(nn.functional, name, functools.partial(_drop, original, group))
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
        for name, original in dropouts.items():
            setattr(nn.functional, name, original)


def local_loss(logits: Sequence[Any], label: Any, losses: Losses, group: ProcessGroup) -> Any:
    """Returns what this process adds to the loss of the whole batch, a scalar tensor with a gradient.

    The parts of all processes sum to `segmentation_loss` of the whole batch, and so do their gradients. A mean over
    pixels is taken of the share and weighted by its pixels. Any other loss (of the hardest pixels, of overlaps, of
    boundaries) is computed by every process on the logits of the whole batch.

    Args:
        logits: N,C,H,W of each head, for this process's images.
        label: N,H,W int64, for the same images.
        losses: one per head.
        group: the processes; each has equally many images.
    """
    check_heads(logits, losses)
    if any(type(loss).__name__ in ("MaskFormerLoss", "KLLoss") for loss in losses.types):
        raise UserError("model.loss: MaskFormerLoss and KLLoss take whole batches: give train.processes=1")
    total = 0.0
    for head, loss, weight in zip(logits, losses.types, losses.coef, strict=True):
        if _is_mean_over_pixels(loss):
            pixels = float((label != loss.ignore_index).sum())
            all_pixels = float(group.all_gather(np.array([pixels])).sum())
            scale = weight * pixels / all_pixels if all_pixels else 0.0
            total = total + segmentation_loss([head], label, Losses((loss,), (scale,)))
        else:
            batch = _gather_layer().apply(head, group)
            scaled = Losses((loss,), (weight / group.size,))
            total = total + segmentation_loss([batch], group.all_gather_tensor(label), scaled)
    return total


def _is_mean_over_pixels(loss: Any) -> bool:
    """Whether it is PaddleSeg's cross entropy with equal weights for all pixels that are not ignored."""
    return (
        type(loss).__name__ == "CrossEntropyLoss"
        and loss.weight is None
        and loss.top_k_percent_pixels == 1.0
        and loss.avg_non_ignore
    )


def _normalize(layer: Any, group: ProcessGroup, features: Any) -> Any:
    paddle = import_paddle()
    channels = features.shape[1]
    scale = layer.weight if layer.weight is not None else paddle.ones([channels])
    shift = layer.bias if layer.bias is not None else paddle.zeros([channels])
    normalized = _batch_norm_layer().apply(features, scale, shift, layer, group)
    activation = getattr(layer, "_act", None)
    return normalized if activation is None else getattr(paddle.nn.functional, activation)(normalized)


def _drop(original: Callable[..., Any], group: ProcessGroup, features: Any, *options: Any, **named: Any) -> Any:
    """Draws dropout's random factors for the whole batch, and applies those of this process's share."""
    count = features.shape[0]
    ones = import_paddle().ones([count * group.size, *features.shape[1:]], features.dtype)
    return features * original(ones, *options, **named)[group.rank * count : (group.rank + 1) * count]


@functools.cache  # classes that derive from Paddle's are made when first needed: importing Paddle takes seconds
def _gather_layer() -> Any:
    py_layer: Any = import_paddle().autograd.PyLayer

    class Gather(py_layer):
        """From a share, N,..., to the whole batch; the gradient is this process's part, times the group's size."""

        @staticmethod
        def forward(context: Any, share: Any, group: ProcessGroup) -> Any:
            context.group, context.count = group, share.shape[0]
            return group.all_gather_tensor(share)

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            first = context.group.rank * context.count
            return gradient[first : first + context.count] * float(context.group.size)

    return Gather


@functools.cache
def _batch_norm_layer() -> Any:
    paddle = import_paddle()
    batch_norm = paddle.nn.functional.batch_norm
    py_layer: Any = paddle.autograd.PyLayer

    class BatchNorm(py_layer):
        """Ioffe and Szegedy, 2015 (arXiv:1502.03167), with the mean and variance of all processes' images.

        Paddle's batch norm with given statistics computes the gradient but for what flows through these: a channel-wise
        product and sum. Its kernel serves for that, too, since Paddle's broadcasting is several times slower on the
        CPU. Arrays of one number a channel are numpy's, which is faster for so few.
        """

        @staticmethod
        def forward(context: Any, features: Any, scale: Any, shift: Any, layer: Any, group: ProcessGroup) -> Any:
            mean, variance = _statistics(features, group)
            statistics = paddle.to_tensor(mean), paddle.to_tensor(variance)
            for running, current in zip((layer._mean, layer._variance), statistics, strict=True):
                running.set_value(layer._momentum * running + (1 - layer._momentum) * current)
            inputs = [tensor.detach() for tensor in (features, scale, shift)]
            for tensor in inputs:
                tensor.stop_gradient = False
            with paddle.enable_grad():  # a graph of its own, for backward
                normalized = batch_norm(inputs[0], *statistics, *inputs[1:], training=False, epsilon=layer._epsilon)
            context.graph = normalized, inputs, mean, 1 / np.sqrt(variance + np.float32(layer._epsilon))
            context.group = group
            context.needs_gradient = [not tensor.stop_gradient for tensor in (features, scale, shift)]
            return normalized.detach()

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            normalized, inputs, mean, inverse = context.graph
            features, scale, _ = inputs
            direct, of_scale, of_shift = paddle.grad(normalized, inputs, gradient)
            count = np.float32(features.size // features.shape[1] * context.group.size)
            sums = context.group.all_gather(np.stack([of_shift.numpy(), of_scale.numpy()])).sum(axis=0) / count
            # through the statistics: a linear function of the features, channel by channel
            factor = scale.numpy() * inverse
            slope = -factor * inverse * sums[1]
            intercept = -factor * sums[0] - slope * mean
            zero, one = zeros_and_ones(len(slope))
            linear = paddle.to_tensor(slope), paddle.to_tensor(intercept)
            direct.add_(batch_norm(features.detach(), zero, one, *linear, training=False, epsilon=0.0))
            gradients = (direct, of_scale, of_shift)
            return tuple(
                each if needed else None for each, needed in zip(gradients, context.needs_gradient, strict=True)
            )

    return BatchNorm


def _statistics(features: Any, group: ProcessGroup) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and (biased) variance of each channel over the whole batch, float32, from those of the shares."""
    paddle = import_paddle()
    channels = features.shape[1]
    mean, variance = paddle.zeros([channels]), paddle.ones([channels])
    zero, one = zeros_and_ones(channels)
    # with momentum 0 the "running" statistics become those of the batch: the fastest way to get them on the CPU
    paddle.nn.functional.batch_norm(features, mean, variance, one, zero, training=True, momentum=0.0)
    parts = group.all_gather(np.stack([mean.numpy(), variance.numpy()])).astype(np.float64)
    means, variances = parts[:, 0], parts[:, 1]
    total = variances.mean(axis=0) + means.var(axis=0)  # the law of total variance, for shares of equal size
    return means.mean(axis=0).astype(np.float32), total.astype(np.float32)
