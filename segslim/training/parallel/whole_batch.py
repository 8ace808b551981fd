"""Layers and losses that see a share of a batch, and act as if they saw the whole one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle
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

    Paddle's kernel of one channel-wise product and sum is used for all of them: its broadcasting is several times
    slower on the CPU.
    """

    @staticmethod
    def forward(context: Any, features: Any, scale: Any, shift: Any, layer: Any, group: Group) -> Any:
        mean, variance = _statistics(features, group)
        for running, found in ((layer._mean, mean), (layer._variance, variance)):
            running.set_value(layer._momentum * running + (1 - layer._momentum) * found)
        context.save_for_backward(features, scale, mean, (variance + layer._epsilon).rsqrt())
        context.group = group
        context.learn = [not tensor.stop_gradient for tensor in (features, scale, shift)]
        return functional.batch_norm(features, mean, variance, scale, shift, training=False, epsilon=layer._epsilon)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        features, scale, mean, inverse = (tensor.detach() for tensor in context.saved_tensor())
        channels, group = features.shape[1], context.group
        by_shift = _channel_sums(gradient)
        by_scale = (_channel_sums(gradient * features) - mean * by_shift) * inverse
        own = np.stack([by_shift.numpy(), by_scale.numpy()])
        shift, slope = (paddle.to_tensor(total) for total in group.gathered(own).sum(axis=0) / _count(features, group))
        factor = scale * inverse
        of_features = -factor * inverse * slope
        through = _linear(gradient, factor, paddle.zeros([channels]))
        through.add_(_linear(features, of_features, -factor * shift - of_features * mean))
        gradients = (through, by_scale, by_shift)
        return tuple(each if learns else None for each, learns in zip(gradients, context.learn, strict=True))


def _statistics(features: Any, group: Group) -> tuple[Any, Any]:
    """Mean and (biased) variance of each channel over the whole batch, from those of the shares."""
    channels = features.shape[1]
    mean, variance, one, zero = (paddle.full([channels], value) for value in (0.0, 1.0, 1.0, 0.0))
    functional.batch_norm(features, mean, variance, one, zero, training=True, momentum=0.0)  # sets them in place
    parts = group.gathered(np.stack([mean.numpy(), variance.numpy()]).astype(np.float64))
    means, variances = parts[:, 0], parts[:, 1]
    total = variances.mean(axis=0) + means.var(axis=0)
    whole = np.stack([means.mean(axis=0), total]).astype(np.float32)
    return paddle.to_tensor(whole[0]), paddle.to_tensor(whole[1])


def _count(features: Any, group: Group) -> float:
    return float(features.size // features.shape[1] * group.size)


def _channel_sums(values: Any) -> Any:
    """The sum over all but the channels, by a matrix product: `sum` takes nine times as long on the CPU."""
    images, channels = values.shape[:2]
    rows = values.reshape([images * channels, -1])
    return paddle.matmul(rows, paddle.ones([rows.shape[1], 1])).reshape([images, channels]).sum(0)


def _linear(features: Any, factor: Any, summand: Any) -> Any:
    zero, one = paddle.zeros([features.shape[1]]), paddle.ones([features.shape[1]])
    return functional.batch_norm(features, zero, one, factor, summand, training=False, epsilon=0.0)
