"""Batch norm into the convolution before it, in a network that is trained on with fake-quantize layers."""

from typing import Any

import numpy as np
from onnx import ModelProto

from segslim.paddle_compat import import_paddle
from segslim.quantization.fold import foldable, output_axis
from segslim.quantization.graph import Graph, attribute


def fuse_conv_bn(network: Any, model: ModelProto) -> int:
    """Multiplies the weights of convolutions by what the batch norm behind each multiplies by, in place; returns how
    many. What is left of the batch norm adds alone, and does so in training, too: its statistics are those of now.

    The network keeps its layers and its output in evaluation. `model` is its float ONNX graph, which tells what follows
    what. As PaddleSlim's fuse_conv_bn, whose network would be another than the checkpoint's.
    """
    import_paddle()
    convolutions = {
        layer.weight.name: layer for layer in network.sublayers() if getattr(layer, "weight", None) is not None
    }
    norms = {layer._mean.name: layer for layer in network.sublayers() if hasattr(layer, "_mean")}
    pairs = foldable(Graph.of(model.graph))
    for convolution, norm in pairs:
        epsilon = float(attribute(norm, "epsilon", 1e-5))  # type: ignore[arg-type]
        _fuse(convolutions[convolution.input[1]], norms[norm.input[3]], output_axis(convolution), epsilon)
    return len(pairs)


def _fuse(convolution: Any, norm: Any, axis: int, epsilon: float) -> None:
    scale, shift, mean, variance = (
        tensor.numpy().astype(np.float64) for tensor in (norm.weight, norm.bias, norm._mean, norm._variance)
    )
    factor = scale / np.sqrt(variance + epsilon)
    weight = convolution.weight.numpy()
    shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
    new = [(convolution.weight, weight * factor.reshape(shape)), (norm.bias, shift - mean * factor)]
    if convolution.bias is not None:
        new.append((convolution.bias, convolution.bias.numpy() * factor))
    new += [(norm.weight, np.ones_like(factor)), (norm._mean, np.zeros_like(factor))]
    new.append((norm._variance, np.full_like(factor, 1 - epsilon)))  # whose root, with epsilon, is 1
    for tensor, value in new:
        tensor.set_value(value.astype(np.float32))
    norm._use_global_stats = True
