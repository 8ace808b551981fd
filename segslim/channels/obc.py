"""Which channels a network can do without when the rest is solved for: Optimal Brain Compression of channel groups.

Within a group, channels are ranked greedily by what their readers' outputs lose although the other weights are refitted
(Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022). Between groups, the scores are scaled by measurement:
the network runs with each group's refitted weights, and the change of its output is counted. Forward passes only: no
labels, no gradients, no Paddle.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from segslim.channels.graph import ChannelGroup, Member
from segslim.channels.walk import CONSUMES
from segslim.gram import LARGEST_GRAM, MEMORY, Activations, Array, Layer, Moments, check_finite, layers_of
from segslim.onnx_tools import copied, session_of

#: The shares of a group's channels at whose removal the change of the network's output is measured.
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
#: So many of the images measure changes of the output; all of them make up the moments.
MEASURED = 6
#: Noise at a layer's outputs, as a share of their deviation, by which the layer's influence is measured.
NOISE = 0.1
#: A step removes one of so many channels that are left: of 1,000 channels a few dozen at a time at first, then one.
AT_ONCE = 32
#: Of a layer whose inputs do not vary: an inverse exists, and its channels cost nothing.
_LEAST_RIDGE = 1e-30


def obc_importance(
    groups: Iterable[ChannelGroup],
    tensors: Mapping[str, str],
    model: ModelProto,
    images: Iterable[Array],
    *,
    ridge: float = 1e-3,
    positions: int = 1024,
    seed: int = 0,
    threads: int = 1,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, NDArray[np.float64]]:
    """For each channel of each group, by how much the network's output changes when it goes in its turn: KL divergence
    of the class probabilities, mean over pixels, in nats.

    Args:
        groups: those to score.
        tensors: the initializer of each parameter (ChannelGraph.tensors).
        model: the dense float ONNX graph; its first output are logits N,C,H,W.
        images: each 1,3,H,W float32, as for reconstruct.
        ridge: as for reconstruct, like positions, seed, threads and memory.
        progress: called with the number of layers and groups done, and of all.

    A channel's score is never less than that of one that goes before it. Groups that no layer of the graph reads
    (those of auxiliary heads, or that end in a product of activations) are absent: they keep all channels.

    Raises UserError for a layer whose activations are not finite.
    """
    samples = list(images)
    known = layers_of(model)
    readers = [
        (group, [m for m in group.members if m.role == CONSUMES and tensors.get(m.parameter) in known])
        for group in groups
    ]
    names = {tensors[member.parameter] for _, members in readers for member in members}
    chosen = [known[name] for name in known if name in names]
    total = len(chosen) + len(readers)
    found = {}
    with Activations(model, samples, threads, memory) as activations:
        for done, layer in enumerate(chosen):
            activations.compute(layer.node.input[0], layer.node.output[0])
            found[layer.weight] = _moments(layer, tensors, activations, len(samples), positions, seed)
            progress(done + 1, total)
        constants = activations.weights
    output = _Output(model, samples[:: max(1, len(samples) // MEASURED)][:MEASURED], threads)
    worth = {layer.weight: output.influence(layer, found[layer.weight].variance()) for layer in chosen}
    scores = {}
    for done, (group, members) in enumerate(readers):
        if members:
            readings = [
                _Reading(known[name], constants, found[name], worth[name], member, group.size, ridge)
                for name, member in ((tensors[member.parameter], member) for member in members)
            ]
            order, costs, refits = _greedy(readings, group.size)
            changes = {count: output.change(refit) for count, refit in refits.items()}
            scores[group.name] = np.empty(group.size)
            scores[group.name][order] = _scaled(costs, changes)
        progress(len(chosen) + done + 1, total)
    return scores


def _moments(
    layer: Layer, tensors: Mapping[str, str], activations: Activations, images: int, positions: int, seed: int
) -> Moments:
    """Of a layer with more inputs than LARGEST_GRAM, of the centre of each patch: one value for each input channel."""
    step = _kernel_step(layer)

    def samples() -> Iterator[tuple[Array, Array]]:
        for image in range(images):
            data, made = (activations.read(image, name) for name in (layer.node.input[0], layer.node.output[0]))
            x, y = layer.sample(data, made, positions, (seed, image))
            check_finite(layer, tensors, x, y)
            yield x[:, :, step // 2 :: step], y

    return Moments.from_samples(samples())


def _kernel_step(layer: Layer) -> int:
    """Columns of the layer's matrix for one of its Moments: above LARGEST_GRAM, positions of the kernel are taken to
    be alike and to be refitted each on its own.
    """
    return layer.kernel if layer.inputs > LARGEST_GRAM else 1


class _Output:
    """The network's output on some images, and how far it moves. Sessions are made for one measurement each."""

    def __init__(self, model: ModelProto, images: Sequence[Array], threads: int) -> None:
        self._model, self._images, self._threads = model, images, threads
        self._clean = self._log_probabilities(model)

    def change(self, weights: Mapping[str, Array]) -> float:
        """Of other initializers."""
        model = copied(self._model)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        return self._divergence(model)

    def influence(self, layer: Layer, variance: float) -> float:
        """Of noise at a layer's outputs, for a squared error of 1, summed over them. variance: of the outputs."""
        noisy = copied(self._model)
        output, nodes = layer.node.output[0], noisy.graph.node
        at = next(at for at, node in enumerate(nodes) if output in node.output)
        clean, noise = f"{output}:clean", f"{output}:noise"
        nodes[at].output[list(nodes[at].output).index(output)] = clean
        scale = NOISE * float(np.sqrt(max(variance, 0.0)))
        if scale < np.finfo(np.float32).tiny:  # a dead layer, as converged networks have: what it reads costs nothing
            return 0.0
        nodes.insert(at + 1, helper.make_node("RandomNormalLike", [clean], [noise], scale=scale, seed=0.0))
        nodes.insert(at + 2, helper.make_node("Add", [clean, noise], [output]))
        error = scale**2 * layer.groups * layer.outputs
        return self._divergence(noisy) / max(error, np.finfo(float).tiny)

    def _divergence(self, model: ModelProto) -> float:
        pairs = zip(self._clean, self._log_probabilities(model), strict=True)
        changes = [(np.exp(before) * (before - after)).sum(1).mean() for before, after in pairs]
        return max(float(np.mean(changes)), 0.0)

    def _log_probabilities(self, model: ModelProto) -> list[Array]:
        session = session_of(model, self._threads)
        name, found = session.get_inputs()[0].name, []
        for image in self._images:
            logits = session.run(None, {name: image})[0].astype(np.float64)
            shifted = logits - logits.max(1, keepdims=True)
            found.append(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
        return found


class _Reading:
    """How one layer reads the channels of a group: a _Reader for each of the layer's own groups."""

    def __init__(
        self,
        layer: Layer,
        constants: Mapping[str, Array],
        found: Moments,
        worth: float,
        member: Member,
        size: int,
        ridge: float,
    ) -> None:
        self.layer, self.constants, self.found = layer, constants, found
        self.step = _kernel_step(layer)
        self.matrix = self._split(layer.matrix(constants[layer.weight]).astype(np.float64))
        self.shiftable = layer.bias is not None or layer.norm is not None
        second = found.second(self.shiftable)
        columns = np.repeat(member.index, layer.kernel // self.step)  # the channel that each column belongs to
        self.readers = [_Reader(self.matrix[g], second[g], worth, columns, size, ridge) for g in range(layer.groups)]

    def refitted(self) -> dict[str, Array]:
        """The initializers of the layer, refitted to what is left, with zeros for what went."""
        matrix = np.stack([reader.refitted() for reader in self.readers])
        layer, new = self.layer, {self.layer.weight: self.layer.weight_of(self._joined(matrix))}
        lost = np.matmul(self.matrix - matrix, self.found.mean()[:, :, None])[:, :, 0]
        lost = lost.reshape(layer.groups, layer.outputs, self.step).sum(2).ravel()
        if layer.bias:
            new[layer.bias] = self.constants[layer.bias] + lost
        elif layer.norm:
            new[layer.norm] = self.constants[layer.norm] - lost
        return {name: np.ascontiguousarray(value, np.float32) for name, value in new.items()}

    def _split(self, matrix: Array) -> Array:
        """groups, outputs, inputs -> groups, outputs x step, inputs / step: positions of the kernel become outputs."""
        groups, outputs, inputs = matrix.shape
        parts = matrix.reshape(groups, outputs, inputs // self.step, self.step).swapaxes(2, 3)
        return parts.reshape(groups, outputs * self.step, -1)

    def _joined(self, matrix: Array) -> Array:
        groups, rows, channels = matrix.shape
        parts = matrix.reshape(groups, rows // self.step, self.step, channels).swapaxes(2, 3)
        return parts.reshape(groups, rows // self.step, -1)


class _Reader:
    """A matrix that reads the group's channels: its weights, and the inverse of the second moments of its inputs.

    Every channel has equally many columns here: one with fewer is filled up with columns of zero weight.
    """

    def __init__(self, matrix: Array, second: Array, worth: float, columns: NDArray[np.int64], size: int, ridge: float):
        counts = np.bincount(columns[columns >= 0], minlength=size)
        self.width, most = len(columns), int(counts.max())
        filled = np.concatenate([columns, np.repeat(np.arange(size), most - counts)])
        self.columns = np.argsort(filled, kind="stable")[(columns < 0).sum() :].reshape(size, most)
        self.others = np.flatnonzero(columns < 0)
        self.origin = np.arange(len(filled))
        damped = second + np.eye(self.width) * max(ridge * np.trace(second) / self.width, _LEAST_RIDGE)
        self.inverse = np.eye(len(filled))
        self.inverse[: self.width, : self.width] = np.linalg.inv(damped)
        self.weight = np.zeros((len(matrix), len(filled)))
        self.weight[:, : self.width] = matrix
        self.worth = worth

    def costs(self, left: NDArray[np.int64]) -> Array:
        """Of each channel of `left`: worth x squared error, summed over outputs, mean over positions, if it goes."""
        at = self.columns[left]  # channels, columns of each
        if at.shape[1] == 1:
            one = at[:, 0]
            return np.asarray(self.worth * np.square(self.weight[:, one]).sum(0) / self.inverse[one, one])
        taken = self.weight[:, at].transpose(1, 0, 2)  # channels, outputs, columns
        products = self.worth * np.matmul(taken.swapaxes(1, 2), taken)
        solved = np.linalg.solve(self.inverse[at[:, :, None], at[:, None]], products)
        return np.asarray(np.trace(solved, axis1=1, axis2=2))

    def remove(self, channels: NDArray[np.int64]) -> None:
        """Refits the other weights; the columns of `channels` stay, with weight zero, until `compact`."""
        at = self.columns[channels].ravel()
        step = np.linalg.solve(self.inverse[np.ix_(at, at)], self.inverse[at])
        self.weight -= self.weight[:, at] @ step
        self.inverse -= self.inverse[:, at] @ step
        self.weight[:, at] = 0.0  # but for rounding errors they are

    def compact(self, left: NDArray[np.int64]) -> None:
        """Forgets the columns of all channels but `left`."""
        keep = np.zeros(len(self.inverse), bool)
        keep[self.others] = keep[self.columns[left].ravel()] = True
        place = np.cumsum(keep) - 1
        self.inverse, self.weight = np.ascontiguousarray(self.inverse[np.ix_(keep, keep)]), self.weight[:, keep]
        self.origin = self.origin[keep]
        self.columns, self.others = place[self.columns], place[self.others]  # of channels that went: of no meaning

    def refitted(self) -> Array:
        """The weights of what is left, with zeros for what went."""
        matrix = np.zeros((len(self.weight), self.width))
        real = self.origin < self.width
        matrix[:, self.origin[real]] = self.weight[:, real]
        return matrix


def _greedy(readings: list[_Reading], size: int) -> tuple[list[int], Array, dict[int, dict[str, Array]]]:
    """The channels in the order in which they go, what each costs, never less than the one before, and by the number
    that went (SHARES of all), the refitted initializers.
    """
    readers = [reader for reading in readings for reader in reading.readers]
    stops = sorted({round(share * size) for share in SHARES} - {0, size})
    left, compacted = np.arange(size), size
    order: list[int] = []
    costs: list[float] = []
    refits: dict[int, dict[str, Array]] = {}
    while len(left):
        found = np.sum([reader.costs(left) for reader in readers], axis=0)
        next_stop = next((stop - len(order) for stop in stops if stop > len(order)), len(left))
        cheapest = np.argsort(found, kind="stable")[: min(max(1, len(left) // AT_ONCE), next_stop)]
        order += left[cheapest].tolist()
        costs += found[cheapest].tolist()
        for reader in readers:
            reader.remove(left[cheapest])
        left = np.delete(left, cheapest)
        if len(order) in stops:
            refits[len(order)] = {name: value for reading in readings for name, value in reading.refitted().items()}
        if len(left) <= 0.8 * compacted:
            compacted = len(left)
            for reader in readers:
                reader.compact(left)
    return order, np.maximum.accumulate(np.maximum(costs, 0.0)), refits


def _scaled(costs: Array, changes: Mapping[int, float]) -> Array:
    """Costs scaled so that those up to each number of channels sum to the change of the output that was measured there;
    past the last one, as before it.
    """
    result = np.array(costs)
    if not changes:  # one channel: nothing could be measured, and it stays
        return result
    begin, reached, scale = 0, 0.0, 1.0
    for end, change in sorted(changes.items()):
        part, change = costs[begin:end], max(change, reached)
        if part.sum() > 0:
            scale = (change - reached) / float(part.sum())
            result[begin:end] = part * scale
        begin, reached = end, change
    result[begin:] = costs[begin:] * scale
    return np.maximum.accumulate(result)
