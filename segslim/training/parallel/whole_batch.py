"""Layers and losses that see a share of a batch, and act as if they saw the whole one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle, zeros_and_ones
from segslim.training.parallel.group import Group

paddle = import_paddle()
functional = paddle.nn.functional
PyLayer: Any = paddle.autograd.PyLayer
_DROPOUTS = ("dropout", "dropout2d", "dropout3d")


@contextmanager
def of_the_whole_batch(network: Any, group: Group) -> Iterator[None]:
    """Within it `network`, in training, normalizes by the whole batch's statistics and drops what one process would.

    Batch norm's running statistics are the same in every process. Random numbers that a network draws otherwise (drop
    path) are those of the share.
    """
    layers = [layer for layer in network.sublayers(include_self=True) if _is_batch_norm(layer)]
    originals = {name: getattr(functional, name) for name in _DROPOUTS}
    for layer in layers:
        layer.__dict__["forward"] = functools.partial(_normalize, layer, group)
    for name, original in originals.items():
        setattr(functional, name, functools.partial(_drop, original, group))
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
        for name, original in originals.items():
            setattr(functional, name, original)


def normalize_together(network: Any, group: Group) -> None:
    """On GPUs Paddle has a batch norm over all processes, which takes the place of others here."""
    if group.size > 1 and group.centre is None:
        paddle.nn.SyncBatchNorm.convert_sync_batchnorm(network)


def whole_batch(share: Any, group: Group) -> Any:
    """The whole batch of which this process has a `share`, N,...; its gradient is this process's part, times `size`."""
    return _Whole.apply(share, group)


def _is_batch_norm(layer: Any) -> bool:
    norms = (paddle.nn.BatchNorm, paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D, paddle.nn.BatchNorm3D)
    return isinstance(layer, norms) and not layer._use_global_stats and layer.training


def _normalize(layer: Any, group: Group, features: Any) -> Any:
    channels = features.shape[1]
    scale = layer.weight if layer.weight is not None else paddle.ones([channels])
    shift = layer.bias if layer.bias is not None else paddle.zeros([channels])
    normalized = _BatchNorm.apply(features, scale, shift, layer, group)
    activation = getattr(layer, "_act", None)
    return normalized if activation is None else getattr(functional, activation)(normalized)


def _drop(original: Callable[..., Any], group: Group, features: Any, *options: Any, **named: Any) -> Any:
    """Dropout multiplies by random factors: those of the whole batch are drawn, and this process's taken."""
    count = features.shape[0]
    factors = original(paddle.ones([count * group.size, *features.shape[1:]], features.dtype), *options, **named)
    return features * factors[group.rank * count : (group.rank + 1) * count]


class _Whole(PyLayer):
    @staticmethod
    def forward(context: Any, share: Any, group: Group) -> Any:
        context.group, context.count = group, share.shape[0]
        return group.gathered_tensor(share)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        first = context.group.rank * context.count
        return gradient[first : first + context.count] * float(context.group.size)


class _BatchNorm(PyLayer):
    """Ioffe and Szegedy, 2015 (arXiv:1502.03167), with the mean and variance of all processes' images.

    Paddle's batch norm with given statistics computes the gradient but for what flows through these: a channel-wise
    product and sum, for which its kernel serves again, since its broadcasting is several times slower on the CPU. The
    few numbers of channels are numpy's, which is quicker with so few.
    """

    @staticmethod
    def forward(context: Any, features: Any, scale: Any, shift: Any, layer: Any, group: Group) -> Any:
        mean, variance = _statistics(features, group)
        given = paddle.to_tensor(mean), paddle.to_tensor(variance)
        for running, found in zip((layer._mean, layer._variance), given, strict=True):
            running.set_value(layer._momentum * running + (1 - layer._momentum) * found)
        inputs = [tensor.detach() for tensor in (features, scale, shift)]
        for tensor in inputs:
            tensor.stop_gradient = False
        with paddle.enable_grad():
            normalized = functional.batch_norm(inputs[0], *given, *inputs[1:], training=False, epsilon=layer._epsilon)
        context.made = normalized, inputs, mean, 1 / np.sqrt(variance + np.float32(layer._epsilon))
        context.group = group
        context.learn = [not tensor.stop_gradient for tensor in (features, scale, shift)]
        return normalized.detach()

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        normalized, inputs, mean, inverse = context.made
        features, scale, _ = inputs
        through, by_scale, by_shift = paddle.grad(normalized, inputs, gradient)
        own = np.stack([by_shift.numpy(), by_scale.numpy()])
        shift, slope = context.group.gathered(own).sum(axis=0) / np.float32(_count(features, context.group))
        factor = scale.numpy() * inverse
        of_features = -factor * inverse * slope
        through.add_(_linear(features.detach(), of_features, -factor * shift - of_features * mean))
        gradients = (through, by_scale, by_shift)
        return tuple(each if learns else None for each, learns in zip(gradients, context.learn, strict=True))


def _statistics(features: Any, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance of each channel over the whole batch, from those of the shares; float32."""
    channels = features.shape[1]
    mean, variance = paddle.zeros([channels]), paddle.ones([channels])
    zero, one = zeros_and_ones(channels)
    functional.batch_norm(features, mean, variance, one, zero, training=True, momentum=0.0)  # sets them in place
    parts = group.gathered(np.stack([mean.numpy(), variance.numpy()])).astype(np.float64)
    means, variances = parts[:, 0], parts[:, 1]
    total = variances.mean(axis=0) + means.var(axis=0)
    return means.mean(axis=0).astype(np.float32), total.astype(np.float32)


def _count(features: Any, group: Group) -> float:
    return float(features.size // features.shape[1] * group.size)


def _linear(features: Any, factor: np.ndarray, summand: np.ndarray) -> Any:
    zero, one = zeros_and_ones(len(factor))
    slope, shift = paddle.to_tensor(factor), paddle.to_tensor(summand)
    return functional.batch_norm(features, zero, one, slope, shift, training=False, epsilon=0.0)
