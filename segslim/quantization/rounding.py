"""Weights rounded so that layers give what they gave, not so that each weight is nearest to what it was."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segslim.gram import LARGEST_GRAM, Activations, Array, Layer, Moments, layers_of
from segslim.onnx_tools import copied
from segslim.quantization.graph import Graph, along_axis, folded_copy, set_initializer
from segslim.quantization.qdq import LEVELS, quantize, weight_axis
from segslim.quantization.saturation import MOST_IN_A_PAIR, largest_pairs
from segslim.quantization.spec import QuantizationSpec

DAMPING = 0.01  # of the mean diagonal of a Gram matrix, as in GPTQ
POSITIONS = 1024  # of each image's output, drawn at random, at which a layer is looked at


def round_weights(
    model: ModelProto,
    spec: QuantizationSpec,
    images: Sequence[np.ndarray],
    *,
    gram: bool = True,
    bias: bool = False,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """What `spec.rounded` holds: {weight.int8, weight.scale, weight.bias} of each int8 layer, by its weight's name.

    In order of execution, each layer's weight is rounded input by input, and what is lost at one is made up for by
    those that are not rounded yet, as far as the Gram matrix of the patches says that they can (Frantar et al., GPTQ,
    ICLR 2023, after Optimal Brain Compression). The patches are those of the network that is int8 up to there. Then the
    bias takes up the mean difference to the float layer's outputs (Nagel et al., ICCV 2019), whose cause may lie before
    the layer. Layers whose weight other nodes read too are left out.

    Args:
        model: the float graph; it is not changed.
        spec: its quantization, with the range of every int8 tensor.
        images: inputs 1,3,H,W, float32.
        gram: False: each weight to the nearest integer.
        bias: whether biases are corrected.
        seed: of the positions that are looked at.
        threads: of ONNX Runtime.
        progress: called with the number of layers done, and of all.
    """
    float_model, int8_model = folded_copy(model), copied(model)
    quantize(int8_model, spec)
    int8 = Graph.from_model(int8_model)
    _dequantize_weights(int8_model, int8)
    originals, layers = layers_of(float_model), layers_of(int8_model)
    chosen = [name for name in originals if f"{name}.dequantized" in layers]
    rounded: dict[str, np.ndarray] = {}
    with Activations(float_model, images, threads) as target, Activations(int8_model, images, threads) as actual:
        for done, name in enumerate(chosen, 1):
            layer, original = layers[f"{name}.dequantized"], originals[name]
            target.compute(original.node.output[0])
            actual.compute(layer.node.input[0])
            samples = partial(_samples, layer, original, target, actual, range(len(images)), seed)
            weight, scale = target.weights[name], int8.array(f"{name}.scale")
            axis = weight_axis(layer.node, weight.ndim)
            steps = layer.matrix(np.broadcast_to(along_axis(scale, axis, weight.ndim), weight.shape))
            integers: Array = layer.matrix(int8.array(f"{name}.int8")).astype(np.float64)
            if gram:
                for part in np.array_split(np.arange(layer.inputs), -(-layer.inputs // LARGEST_GRAM)):
                    exact = layer.matrix(weight)[:, :, part].astype(np.float64)
                    integers[:, :, part] = round_by_gram(
                        exact, steps[:, :, part], Moments.from_samples(samples(part)).gram
                    )
                integers = layer.matrix(_unsaturated(layer, integers, int8.array(f"{name}.int8"), spec.target))
            rounded[f"{name}.int8"] = np.ascontiguousarray(layer.weight_of(integers).astype(np.int8))
            rounded[f"{name}.scale"] = scale
            actual.weights[layer.weight] = np.ascontiguousarray(layer.weight_of((integers * steps).astype(np.float32)))
            if bias and layer.bias in layer.node.input:
                sums = Moments.from_samples(samples(np.arange(layer.inputs)), with_gram=False)
                given = np.matmul(integers * steps, sums.mean()[:, :, None])[:, :, 0]
                missing = sums.outputs / sums.count - given
                actual.weights[layer.bias] = rounded[f"{name}.bias"] = missing.ravel().astype(np.float32)
            progress(done, len(chosen))
    return rounded


def round_by_gram(weight: Array, steps: Array, gram: Array) -> Array:
    """Integers q, -127 to 127, for which the trace of E gram Eᵀ, E = weight - q * steps, is small: that of the outputs.

    Args:
        weight: groups, outputs, inputs, float64.
        steps: the scale of each weight, of the same shape.
        gram: groups, inputs, inputs: sums of x xᵀ over patches x.
    """
    order = np.argsort(-np.einsum("gii->i", gram))  # the inputs that matter most are rounded while others can make up
    left, steps, gram = weight[:, :, order], steps[:, :, order], gram[:, order][:, :, order]
    diagonal = np.einsum("gii->gi", gram)  # a view
    diagonal += np.maximum(DAMPING * diagonal.mean(1, keepdims=True), np.finfo(np.float64).tiny)
    # row i: by how much the inputs behind i change for an error of its pivot at i, the earlier ones being fixed
    factor = np.linalg.cholesky(np.linalg.inv(gram)).swapaxes(1, 2)
    integers = np.empty_like(left)
    for at in range(left.shape[2]):
        integers[:, :, at] = np.clip(np.rint(left[:, :, at] / steps[:, :, at]), -LEVELS, LEVELS)
        error = (left[:, :, at] - integers[:, :, at] * steps[:, :, at]) / factor[:, None, at, at]
        left[:, :, at + 1 :] -= error[:, :, None] * factor[:, None, at, at + 1 :]
    result = np.empty_like(integers)
    result[:, :, order] = integers
    return result


def _samples(
    layer: Layer,
    original: Layer,
    target: Activations,
    actual: Activations,
    images: Sequence[int],
    seed: int,
    part: NDArray[np.integer],
) -> Iterator[tuple[Array, Array]]:
    """Of each image, the inputs `part` of the int8 network's patches, and the float layer's outputs."""
    for image in images:
        data, output = actual.read(image, layer.node.input[0]), target.read(image, original.node.output[0])
        x, y = layer.sample(data, output, POSITIONS, (seed, image))
        yield x[:, :, part], y


def _unsaturated(layer: Layer, integers: Array, nearest: Array, target: str) -> Array:
    """The weight of `integers`, and of `nearest` in the output channels where that would saturate kernels."""
    weight = layer.weight_of(integers)
    exceeding = largest_pairs(layer.node, weight, target) > MOST_IN_A_PAIR
    axis = weight_axis(layer.node, weight.ndim)
    mask = exceeding.any() if axis is None else along_axis(exceeding, axis, weight.ndim)
    return np.where(mask, nearest.astype(np.float64), weight)


def _dequantize_weights(model: ModelProto, int8: Graph) -> None:
    """Puts constants in place of the DequantizeLinear nodes that read int8 weights, in place."""
    for node in list(model.graph.node):
        if node.op_type != "DequantizeLinear" or not int8.is_constant(node.input[0]):
            continue
        integers, scale = int8.array(node.input[0]), int8.array(node.input[1])
        reader = int8.consumers[node.output[0]][0]
        axis = weight_axis(reader, integers.ndim)
        set_initializer(model.graph, node.output[0], integers * along_axis(scale, axis, integers.ndim))
        model.graph.node.remove(node)
