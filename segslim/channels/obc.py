"""Which channels a network can do without when the rest is solved for: Optimal Brain Compression for channel groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from segslim.channels.gram import MEMORY, Activations, Array, Layer, gram_of, layers_of, session_of
from segslim.channels.graph import ChannelGroup
from segslim.channels.walk import CONSUMES
from segslim.errors import UserError

#: Noise at a layer's outputs, as a share of their deviation, by which its influence is measured.
NOISE = 0.1
_LEAST_RIDGE = 1e-30  # of a layer whose inputs do not vary: an inverse exists, and its channels cost nothing


@dataclass
class Moments:
    """Of the patches x that a layer reads and of its outputs y, over all positions: counts, sums, and sums of xᵀ x."""

    gram: Array
    patches: Array
    outputs: Array
    squares: Array
    count: int = 0

    def covariance(self) -> Array:
        """Of the patches: groups, inputs, inputs."""
        mean = self.patches / self.count
        return self.gram / self.count - mean[:, :, None] * mean[:, None]

    def second(self) -> Array:
        return self.gram / self.count

    def variance(self) -> float:
        """Of the outputs, the mean over channels."""
        mean = self.outputs / self.count
        return float((self.squares / self.count - np.square(mean)).mean())


def moments(
    model: ModelProto,
    layers: Iterable[str],
    images: Iterable[Array],
    *,
    positions: int = 1024,
    seed: int = 0,
    threads: int = 1,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Moments]:
    """The Moments of each of `layers` (by the name of the weight), from one run of `model` over the images."""
    samples = list(images)
    known = layers_of(model)
    wanted = [known[name] for name in known if name in set(layers)]
    found = {}
    with Activations(model, samples, threads, memory) as activations:
        for done, layer in enumerate(wanted):
            made, read = layer.node.output[0], layer.node.input[0]
            activations.compute(read, made)
            found[layer.weight] = _moments(layer, activations, len(samples), positions, seed)
            progress(done + 1, len(wanted))
    return found


def _moments(layer: Layer, activations: Activations, images: int, positions: int, seed: int) -> Moments:
    groups, width = layer.groups, layer.inputs
    outputs = layer.matrix(activations.weights[layer.weight]).shape[1]
    found = Moments(
        np.zeros((groups, width, width)),
        np.zeros((groups, width)),
        np.zeros((groups, outputs)),
        np.zeros((groups, outputs)),
    )
    for image in range(images):
        made = activations.read(image, layer.node.output[0])
        chosen = layer.positions(made, positions, np.random.default_rng((seed, image)))
        x = layer.patches(activations.read(image, layer.node.input[0]), made, chosen)
        y = layer.outputs(made, chosen)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise UserError(f"activations of the layer of {layer.weight} are not finite: check the weights and images")
        found.gram += gram_of(x)
        found.patches += x.sum(1, dtype=np.float64)
        found.outputs += y.sum(1, dtype=np.float64)
        found.squares += np.square(y, dtype=np.float64).sum(1)
        found.count += x.shape[1]
    return found


def influences(
    model: ModelProto,
    layers: Mapping[str, float],
    images: Sequence[Array],
    *,
    threads: int = 1,
) -> dict[str, float]:
    """How much the network's output changes for the noise at each layer's outputs: KL divergence of the softmax over
    classes, mean over pixels, for a mean squared error of 1, summed over the layer's outputs.

    layers: by the name of the weight, the variance of the outputs. Forward passes only: one for each layer and image.
    """
    known = layers_of(model)
    clean = [_log_softmax(_logits(session_of(model, threads), image)) for image in images]
    found = {}
    for name, variance in layers.items():
        layer = known[name]
        width = layer.groups * layer.matrix(np.empty(layer.shape, np.float32)).shape[1]
        session = session_of(_with_noise(model, layer, NOISE * float(np.sqrt(variance))), threads)
        changes = [
            _divergence(before, _log_softmax(_logits(session, image)))
            for before, image in zip(clean, images, strict=True)
        ]
        found[name] = float(np.mean(changes)) / max(NOISE**2 * variance * width, np.finfo(float).tiny)
    return found


def _with_noise(model: ModelProto, layer: Layer, deviation: float) -> ModelProto:
    noisy = ModelProto.FromString(model.SerializeToString())
    output = layer.node.output[0]
    at = next(at for at, node in enumerate(noisy.graph.node) if output in node.output)
    clean, noise = f"{output}:clean", f"{output}:noise"
    noisy.graph.node[at].output[list(noisy.graph.node[at].output).index(output)] = clean
    noisy.graph.node.insert(at + 1, helper.make_node("RandomNormalLike", [clean], [noise], scale=deviation, seed=0.0))
    noisy.graph.node.insert(at + 2, helper.make_node("Add", [clean, noise], [output]))
    return noisy


def _logits(session: object, image: Array) -> Array:
    name = session.get_inputs()[0].name  # type: ignore[attr-defined]
    return np.asarray(session.run(None, {name: image})[0], np.float64)  # type: ignore[attr-defined]


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _divergence(before: Array, after: Array) -> float:
    """KL divergence of log-probabilities N,C,H,W, mean over pixels."""
    return float((np.exp(before) * (before - after)).sum(1).mean())


def obc_importance(
    groups: Iterable[ChannelGroup],
    tensors: Mapping[str, str],
    model: ModelProto,
    found: Mapping[str, Moments],
    weights: Mapping[str, Array | float],
    *,
    ridge: float = 1e-3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, NDArray[np.float64]]:
    """For each group, what its channels cost in the outputs of the layers that read them, although the other channels'
    weights are refitted; greedily: the cheapest goes first, and what the others cost is brought up to date.

    Args:
        groups: those to score.
        tensors: the initializer of each parameter (ChannelGraph.tensors).
        model: the dense float ONNX graph.
        found: Moments of every layer that reads a channel of the groups.
        weights: of a mean squared error of 1, by layer: one number for each output, or one for all.
        ridge: as in reconstruct.

    A channel's score is its cost when it goes, never less than that of the one before (Frantar and Alistarh, Optimal
    Brain Compression, NeurIPS 2022). Groups that no layer of `found` reads are absent.
    """
    known = layers_of(model)
    arrays = weights_of(model, known)
    chosen = list(groups)
    scores = {}
    for done, group in enumerate(chosen):
        readers = []
        for member in group.members:
            name = tensors.get(member.parameter, "")
            if member.role == CONSUMES and name in found:
                readers += _readers(
                    known[name], arrays[name], found[name], weights[name], member.index, group.size, ridge
                )
        if readers:
            scores[group.name] = _greedy(readers, group.size)
        progress(done + 1, len(chosen))
    return scores


def weights_of(model: ModelProto, layers: Mapping[str, Layer]) -> dict[str, Array]:
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in layers}


def _readers(
    layer: Layer, weight: Array, found: Moments, value: Array | float, index: NDArray[np.int64], size: int, ridge: float
) -> list["_Reader"]:
    matrix = layer.matrix(weight).astype(np.float64)
    groups, outputs, _ = matrix.shape
    values = np.broadcast_to(np.asarray(value, np.float64), (groups * outputs,)).reshape(groups, outputs)
    shiftable = layer.bias is not None or layer.norm is not None
    second = found.covariance() if shiftable else found.second()
    columns = np.repeat(index, layer.kernel)  # the channel that each column of the matrix belongs to
    return [_Reader(matrix[g], second[g], values[g], columns, size, ridge) for g in range(groups)]


class _Reader:
    """One layer that reads the group's channels: its weights, and the inverse of the second moments of its inputs.

    Every channel has equally many columns here: a channel with fewer is filled up with columns of zero weight.
    """

    def __init__(self, matrix: Array, second: Array, value: Array, columns: NDArray[np.int64], size: int, ridge: float):
        counts = np.bincount(columns[columns >= 0], minlength=size)
        most, width = counts.max(), len(columns)
        filler = int((most - counts).sum())
        self.columns = np.full((size, most), -1)
        spare = width
        for channel in range(size):
            own = np.flatnonzero(columns == channel)
            extra = np.arange(spare, spare + most - len(own))
            spare += len(extra)
            self.columns[channel] = np.concatenate([own, extra])
        self.others = np.flatnonzero(columns < 0)
        self.width, self.origin = width, np.arange(width + filler)
        damped = second + np.eye(width) * max(ridge * np.trace(second) / width, _LEAST_RIDGE)
        self.inverse = np.eye(width + filler)
        self.inverse[:width, :width] = np.linalg.inv(damped)
        self.weight = np.zeros((len(matrix), width + filler))
        self.weight[:, :width] = matrix
        self.value = value

    def costs(self, left: NDArray[np.int64]) -> Array:
        """Of each channel of `left`: the sum over outputs of value x squared error where it goes."""
        at = self.columns[left]  # channels, columns of each
        if at.shape[1] == 1:
            one = at[:, 0]
            return np.asarray((self.value @ np.square(self.weight[:, one])) / self.inverse[one, one])
        taken = self.weight[:, at].transpose(1, 0, 2)  # channels, outputs, columns
        gram = np.matmul(taken.swapaxes(1, 2), taken * self.value[:, None])
        return np.trace(np.linalg.solve(self.inverse[at[:, :, None], at[:, None]], gram), axis1=1, axis2=2)

    def remove(self, channel: int) -> None:
        at = self.columns[channel]
        step = np.linalg.solve(self.inverse[np.ix_(at, at)], self.inverse[at])
        self.weight -= self.weight[:, at] @ step
        self.inverse -= self.inverse[:, at] @ step
        # What was removed must not come back by a rounding error.
        self.weight[:, at] = 0.0

    def refitted(self) -> Array:
        """The weights of what is left, with zeros for what went."""
        matrix = np.zeros((len(self.weight), self.width))
        real = self.origin < self.width
        matrix[:, self.origin[real]] = self.weight[:, real]
        return matrix

    def compact(self, left: NDArray[np.int64]) -> None:
        """Forgets the columns of channels that went."""
        keep = np.zeros(len(self.inverse), bool)
        keep[self.others] = keep[self.columns[left].ravel()] = True
        place = np.cumsum(keep) - 1
        self.inverse, self.origin = np.ascontiguousarray(self.inverse[np.ix_(keep, keep)]), self.origin[keep]
        self.weight = np.ascontiguousarray(self.weight[:, keep])
        self.columns, self.others = place[self.columns], place[self.others]  # of those that went: of no meaning


def _greedy(readers: list[_Reader], size: int) -> NDArray[np.float64]:
    scores, worth = np.zeros(size), 0.0
    left = np.arange(size)
    compacted = size
    while len(left):
        costs = sum(reader.costs(left) for reader in readers)
        least = int(np.argmin(costs))
        channel, worth = int(left[least]), max(worth, float(costs[least]))
        scores[channel] = worth
        left = np.delete(left, least)
        for reader in readers:
            reader.remove(channel)
        if len(left) <= 0.8 * compacted and len(left):
            compacted = len(left)
            for reader in readers:
                reader.compact(left)
    return scores
