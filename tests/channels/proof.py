"""The proof that a pruning is right: pruned equals masked, in float64 with calibrated batch norm, and a slightly
wrong one does not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from segslim.channels.graph import ChannelGraph
from segslim.channels.pruning import prune
from segslim.paddle_compat import import_paddle, with_auxiliary_heads

paddle = import_paddle()


@contextmanager
def in_float64(network: Any) -> Iterator[None]:
    """The default type too, since networks make zeros on their way (ENet)."""
    network.to(dtype="float64")
    paddle.set_default_dtype("float64")
    try:
        yield
    finally:
        paddle.set_default_dtype("float32")
        network.to(dtype="float32")


def calibrate(network: Any, image: Any, dtype: str = "float64") -> None:
    """Sets batch norm's statistics to those of one image, and gives batch norm scales and biases that tell channels
    apart.
    """
    generator = np.random.default_rng(0)
    norms = [
        layer
        for layer in network.sublayers()
        if hasattr(layer, "_momentum") and getattr(layer, "weight", None) is not None
    ]
    for layer in norms:
        layer._momentum = 0.0
        layer.weight.set_value(generator.uniform(0.5, 1.5, layer.weight.shape).astype(dtype))
        layer.bias.set_value(generator.uniform(-0.5, 0.5, layer.bias.shape).astype(dtype))
    network.train()
    with paddle.no_grad():
        network(image)
    network.eval()


def outputs(network: Any, image: Any) -> list[np.ndarray]:
    paddle.seed(0)  # some draw the points that they train on (PointRend)
    with with_auxiliary_heads(network), paddle.no_grad():
        return [value.numpy() for value in paddle.utils.flatten(network(image))]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference, relative to the scale of each output."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def random_kept(graph: ChannelGraph, share: float, seed: int) -> dict[str, np.ndarray]:
    """Keeps a random share of every group, at least one channel."""
    generator = np.random.default_rng(seed)
    return {
        group.name: np.sort(generator.permutation(group.size)[: max(1, round(group.size * share))])
        for group in graph.groups
        if group.prunable
    }


def mask(network: Any, graph: ChannelGraph, kept: dict[str, Any], everywhere: bool) -> dict[str, np.ndarray]:
    """Zeroes what makes the removed channels (weights, biases, batch norm); returns the dense weights.

    everywhere: what reads them too, for networks with operators that make something else of zero.
    """
    keep = graph.keeps(kept)
    state = network.state_dict()
    dense = {name: value.numpy().copy() for name, value in state.items()}
    for slot in graph.slots:
        if (slot.role == "consumes" and not everywhere) or slot.parameter.endswith("_variance"):
            continue
        value = state[slot.parameter].numpy().copy()
        np.moveaxis(value, slot.axis, 0)[~keep[slot.ids]] = 0
        state[slot.parameter].set_value(value)
    return dense


def restore(network: Any, weights: dict[str, np.ndarray]) -> None:
    for name, value in network.state_dict().items():
        value.set_value(weights[name])


def prove(
    network: Any, graph: ChannelGraph, kept: dict[str, Any], image: Any, everywhere: bool = False
) -> tuple[float, float]:
    """Prunes `network`; returns how far masked is from pruned, and how far from pruned is a network with one index
    shifted by one.
    """
    dense = mask(network, graph, kept, everywhere)
    masked = outputs(network, image)
    restore(network, dense)
    channels = prune(network, graph, kept)
    pruned = outputs(network, image)
    shifted = 0.0
    for name, axis, indices in _shifted_consumers(graph, channels):
        parameter = network.state_dict()[name]
        right = parameter.numpy().copy()
        wrong = dense[name]
        for other, theirs in channels.kept[name].items():
            wrong = wrong.take(indices if other == axis else theirs, other)
        parameter.set_value(wrong)
        shifted = max(shifted, difference(outputs(network, image), pruned))
        parameter.set_value(right)
    return difference(masked, pruned), shifted


def _shifted_consumers(graph: ChannelGraph, channels: Any) -> list[tuple[str, int, list[int]]]:
    """Three of the consumers that lost channels, each with one of its kept indices replaced by the next.

    Three, because the channel that is misplaced may be a dead one.
    """
    found = []
    for slot in graph.slots:
        kept = channels.kept.get(slot.parameter, {}).get(slot.axis, [])
        size = len(slot.ids)
        movable = [at for at, index in enumerate(kept) if (index + 1) % size not in kept]
        if slot.role == "consumes" and movable:
            shifted = [(index + (at == movable[0])) % size for at, index in enumerate(kept)]
            found.append((slot.parameter, slot.axis, shifted))
    return found[:: max(1, len(found) // 3)]
