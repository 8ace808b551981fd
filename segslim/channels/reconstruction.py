"""Solves for the weights of a pruned network, layer by layer, so that each layer gives what the dense one gave."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segslim.errors import UserError
from segslim.gram import LARGEST_GRAM, MEMORY, Activations, Array, Layer, check_finite, gram_of, layers_of

#: Fewer images say too little about others.
LEAST_IMAGES = 8
#: Of every so many images, one is not solved for: the errors are measured on those.
HELD_OUT = 6
#: A layer whose error is below this already is not touched.
NEGLIGIBLE = 1e-5
#: Of a sum of float32 products, as a share of it: less than that is rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class LayerError:
    """‖y - y'‖ / ‖y - mean(y)‖ of a layer's outputs, y in the dense and y' in the pruned network, on held-out images.

    before: with its old weights behind the layers solved so far; after: with the new ones; left: why the weights were
    left as they were, or "".
    """

    before: float
    after: float
    left: str = ""


@dataclass(frozen=True)
class Reconstruction:
    """weights: by the name of the initializer (weights, biases, running means), those that changed; errors: by the name
    of the weight, in order of execution.
    """

    weights: Mapping[str, Array]
    errors: Mapping[str, LayerError]


def reconstruct(
    dense: ModelProto,
    pruned: ModelProto,
    kept: Mapping[str, Mapping[int, Sequence[int]]],
    images: Iterable[Array],
    *,
    ridge: float = 1e-3,
    positions: int = 1024,
    seed: int = 0,
    threads: int = 1,
    tensors: Mapping[str, str] | None = None,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reconstruction:
    """Solves for the weights of `pruned` that reproduce the layers of `dense`, without training and without labels.

    In order of execution, each layer's weight W becomes W + R Xᵀ (X Xᵀ + λ I)⁻¹: X are the patches that the layer
    reads in the pruned network, whose earlier layers are solved already, and R = Y - W X is what is missing of the
    dense layer's outputs Y (He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017; Luo et
    al., ThiNet, ICCV 2017). X and R are centred where the layer has a bias, or a batch norm behind it whose running
    mean then takes up the difference of the means. A layer is left as it was where the error on held-out images does
    not fall. The same arguments, on the same machine with as many threads, give the same weights, bit for bit.

    Args:
        dense: float ONNX graph; batch norm may be folded or not.
        pruned: the same graph with fewer channels; layers correspond by the names of their weights.
        kept: for each weight and axis, the indices into the dense weight that are left; absent: all.
        images: at least 8, each 1,3,H,W float32 as the network reads it.
        ridge: λ as a share of the mean diagonal of X Xᵀ.
        positions: how many output positions of each image are solved for, drawn at random.
        seed: of the positions.
        threads: of ONNX Runtime.
        tensors: the initializer of each parameter (ChannelGraph.tensors): those that may change; None for all.
        memory: bytes of activations kept in memory; more goes to temporary files.
        progress: called with the number of layers done, and of all.

    Raises UserError for fewer than 8 images, and for a layer whose activations are not finite.
    """
    samples = list(images)
    if len(samples) < LEAST_IMAGES:
        raise UserError(f"reconstruction: {len(samples)} images are too few; give at least {LEAST_IMAGES}")
    before = layers_of(dense)
    layers = [
        layer
        for name, layer in layers_of(pruned).items()
        if name in before and (tensors is None or name in tensors.values())
    ]
    alike = all(np.array_equal(samples[0], sample) for sample in samples[1:])
    changed: dict[str, Array] = {}
    errors: dict[str, LayerError] = {}
    with (
        Activations(dense, samples, threads, memory) as target,
        Activations(pruned, samples, threads, memory) as actual,
    ):
        for done, layer in enumerate(layers):
            original = before[layer.weight]
            target.compute(original.node.output[0])
            actual.compute(layer.node.input[0])
            outputs = _outputs_left(original, layer, kept.get(layer.weight, {}))
            problem = _Problem(layer, original, outputs, target, actual, tensors or {}, len(samples), positions, seed)
            new, errors[layer.weight] = problem.solve(ridge, alike)
            actual.weights.update(new)
            changed.update(new)
            progress(done + 1, len(layers))
    return Reconstruction(changed, errors)


def _outputs_left(original: Layer, layer: Layer, axes: Mapping[int, Sequence[int]]) -> NDArray[np.int64] | None:
    """Which outputs of the dense layer the pruned one still makes; None for all."""
    by_input = original.node.op_type == "ConvTranspose" and original.groups > 1 and original.shape[1] == 1
    left = axes.get(0 if by_input else original.output_axis)
    return None if left is None else np.asarray(left, np.int64)


class _Problem:
    """The regression of one layer: its inputs in the pruned network, and what is missing of the dense outputs."""

    def __init__(
        self,
        layer: Layer,
        original: Layer,
        left: NDArray[np.int64] | None,
        target: Activations,
        actual: Activations,
        tensors: Mapping[str, str],
        images: int,
        positions: int,
        seed: int,
    ) -> None:
        self.layer, self.original, self.left = layer, original, left
        self.target, self.actual, self.tensors = target, actual, tensors
        self.positions, self.seed = positions, seed
        self.judged = list(range(HELD_OUT - 1, images, HELD_OUT))
        self.solved = [image for image in range(images) if image not in self.judged]
        self.matrix = layer.matrix(actual.weights[layer.weight]).astype(np.float64)
        self.old_shift = _shift(layer, actual.weights)
        self.shift = self.old_shift
        self.shiftable = layer.bias is not None or layer.norm is not None

    def solve(self, ridge: float, alike: bool) -> tuple[dict[str, Array], LayerError]:
        """The layer's initializers that change, and its error."""
        before = self._error()
        if before < NEGLIGIBLE:
            return {}, LayerError(before, before, "its outputs are those of the dense network")
        if alike:
            return {}, LayerError(before, before, "the images are all alike")
        parts = np.array_split(np.arange(self.layer.inputs), -(-self.layer.inputs // LARGEST_GRAM))
        for part in parts:
            self._solve_part(part, ridge)
        after = self._error()
        if not after < before:
            return {}, LayerError(before, before, "the error on held-out images does not fall")
        return self._initializers(), LayerError(before, after)

    def _solve_part(self, part: NDArray[np.int64], ridge: float) -> None:
        """Corrects the columns `part` of the matrix, the others being as they are."""
        groups, outputs, _ = self.matrix.shape
        gram = np.zeros((groups, len(part), len(part)))
        cross = np.zeros((groups, outputs, len(part)))
        sum_x, sum_r, count = np.zeros((groups, len(part))), np.zeros((groups, outputs)), 0
        for image in self.solved:
            x, y = self._sample(image)
            residual = y - self._outputs(x)
            x = x if len(part) == x.shape[2] else np.ascontiguousarray(x[:, :, part])
            gram += gram_of(x)
            cross += np.matmul(residual.swapaxes(1, 2), x)
            sum_x += x.sum(1, dtype=np.float64)
            sum_r += residual.sum(1, dtype=np.float64)
            count += x.shape[1]
        mean_x, mean_r = sum_x / count, sum_r / count
        power = np.einsum("gii->gi", gram).mean(1, keepdims=True)
        if self.shiftable:
            gram -= count * mean_x[:, :, None] * mean_x[:, None]
            cross -= count * mean_r[:, :, None] * mean_x[:, None]
        diagonal = np.einsum("gii->gi", gram)  # a view
        # inputs that are constant leave rounding alone behind when they are centred
        diagonal += np.maximum(ridge * diagonal.mean(1, keepdims=True), ROUNDING * power)
        dead = power[:, 0] < count * np.finfo(np.float32).tiny  # the squares of such inputs vanish, and say nothing
        gram[dead], cross[dead] = np.eye(len(part)), 0
        change = np.linalg.solve(gram, cross.swapaxes(1, 2)).swapaxes(1, 2)
        self.matrix[:, :, part] += change
        if self.shiftable:
            self.shift = self.shift + mean_r - np.matmul(change, mean_x[:, :, None])[:, :, 0]

    def _error(self) -> float:
        missing, energy, total, count = 0.0, 0.0, 0.0, 0
        for image in self.judged:
            x, y = self._sample(image)
            missing += float(np.square(y - self._outputs(x), dtype=np.float64).sum())
            energy += float(np.square(y, dtype=np.float64).sum())
            total, count = total + y.sum(1, dtype=np.float64), count + y.shape[1]
        least = max(ROUNDING * energy, float(np.finfo(np.float32).tiny))  # of outputs that are constant
        return float(np.sqrt(missing / max(energy - float(np.square(total).sum()) / count, least)))

    def _outputs(self, patches: Array) -> Array:
        """What the layer makes of patches: groups, positions, outputs."""
        result = np.matmul(patches, self.matrix.swapaxes(1, 2).astype(np.float32))
        return np.asarray(result + self.shift[:, None].astype(np.float32))

    def _sample(self, image: int) -> tuple[Array, Array]:
        """Patches of the pruned network, and the dense layer's outputs, at the image's positions."""
        wanted = self.target.read(image, self.original.node.output[0])
        if self.left is not None:
            wanted = wanted.take(self.left, 1 if self.layer.node.op_type.startswith("Conv") else -1)
        data = self.actual.read(image, self.layer.node.input[0])
        x, y = self.layer.sample(data, wanted, self.positions, (self.seed, image))
        check_finite(self.layer, self.tensors, x, y)
        bias = self.original.bias and self.target.weights[self.original.bias]
        return x, y + self._dense_bias(bias) if isinstance(bias, np.ndarray) else y

    def _dense_bias(self, bias: Array) -> Array:
        """A MatMul's bias is added behind it: then it is no part of its output."""
        zero = np.zeros((self.layer.groups, 1, self.matrix.shape[1]), np.float32)
        if self.original.node.op_type != "MatMul":
            return zero
        return (bias if self.left is None else bias[self.left]).reshape(zero.shape)

    def _initializers(self) -> dict[str, Array]:
        weights, layer = self.actual.weights, self.layer
        new = {layer.weight: layer.weight_of(self.matrix)}
        change = (self.shift - self.old_shift).ravel()
        if layer.bias:
            new[layer.bias] = weights[layer.bias] + change
        elif layer.norm:
            new[layer.norm] = weights[layer.norm] - change
        return {name: np.ascontiguousarray(value.astype(weights[name].dtype)) for name, value in new.items()}


def _shift(layer: Layer, weights: Mapping[str, Array]) -> Array:
    """What is added to the layer's outputs: groups, outputs of each."""
    bias = weights[layer.bias] if layer.bias else np.zeros(layer.groups * layer.outputs)
    return np.asarray(bias, np.float64).reshape(layer.groups, layer.outputs)
