"""Removes channels from a network, in place, and records which, so that a newly built network can be pruned alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.allocation import allocate
from segslim.channels.graph import ChannelGraph, Kept
from segslim.channels.importance import Weights, score
from segslim.channels.sensitivity import Sensitivity
from segslim.channels.walk import Rule
from segslim.errors import UserError
from segslim.exported import ExportedNetwork
from segslim.paddle_compat import import_paddle


@dataclass(frozen=True)
class Channels:
    """What is left of a dense network.

    kept: for each state-dict name and axis, the indices into the DENSE parameter that are left; groups: for each
    depthwise convolution's layer, its number of groups; sizes: for each layer, the integer attributes that follow its
    channels.
    """

    kept: Mapping[str, Mapping[int, list[int]]] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def then(self, later: "Channels") -> "Channels":
        """Both prunings as one: first this, then `later`, whose indices count the channels that this one keeps."""
        kept = {name: dict(axes) for name, axes in self.kept.items()}
        for name, axes in later.kept.items():
            for axis, indices in axes.items():
                before = kept.setdefault(name, {}).get(axis)
                kept[name][axis] = [before[index] for index in indices] if before else list(indices)
        sizes = {
            layer: {**self.sizes.get(layer, {}), **later.sizes.get(layer, {})}
            for layer in {**self.sizes, **later.sizes}
        }
        return Channels(kept, {**self.groups, **later.groups}, sizes)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, which makes strings of the axes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Channels":
        kept = {name: {int(axis): indices for axis, indices in axes.items()} for name, axes in value["kept"].items()}
        return cls(kept, value["groups"], value["sizes"])


@dataclass(frozen=True)
class PruneResult:
    """FLOPs before and after, the channels kept of each group, and what is left of the dense network."""

    flops_before: int
    flops_after: int
    kept: Mapping[str, NDArray[np.integer]]
    channels: Channels


def prune_by_ratio(
    network: Any,
    input_shape: tuple[int, ...],
    ratio: float,
    criterion: str = "l1_norm",
    align: int = 1,
    sensitivity: Sensitivity | None = None,
    channels: Channels | None = None,
    *,
    allocation: str | None = None,
    skip: Sequence[str] = (),
    gradients: Iterable[Weights] = (),
    seed: int = 0,
    rules: Mapping[str, Rule] | None = None,
) -> PruneResult:
    """Traces, scores, allocates and prunes in one call: removes `ratio` of the FLOPs of a dygraph network, in place.

    Args:
        network: any `paddle.nn.Layer` of one image.
        input_shape: (N, C, H, W), at which FLOPs are counted.
        ratio: the fraction of the network's FLOPs to remove.
        criterion, skip, gradients, seed: which channels of a group go first, see `score`.
        align, allocation, sensitivity: how many each group keeps, see `allocate`.
        channels: what an earlier pruning left of the dense network.
        rules: for further operators, see `ChannelGraph.trace`.

    Create the optimizer afterwards. Raises UserError when the ratio cannot be reached to within 0.01.
    """
    graph = ChannelGraph.trace(network, input_shape, rules)
    weights = {name: np.asarray(value) for name, value in network.state_dict().items()}
    importance = score(criterion, graph, weights, gradients, seed, skip)
    kept = allocate(graph, importance, sensitivity, ratio, align, allocation=allocation)
    return PruneResult(graph.flops(), graph.flops(kept), kept, prune(network, graph, kept, channels))


def prune(network: Any, graph: ChannelGraph, kept: Kept, channels: Channels | None = None) -> Channels:
    """Removes all channels but `kept` of each group from `network`, in place. Its Parameter objects stay, with fewer
    elements.

    Args:
        network: a dygraph network.
        graph: traced from it as it is now.
        kept: sorted indices of each group's channels; groups that are absent keep all.
        channels: what an earlier pruning left of the dense network, if any.

    Returns what is left of the dense network now. Create the optimizer afterwards: one that has seen the network keeps
    state of the old shapes.
    """
    pruning = channels_of(graph, kept)
    apply_channels(network, pruning)
    return channels.then(pruning) if channels else pruning


def channels_of(graph: ChannelGraph, kept: Kept) -> Channels:
    """What is left of the traced network's parameters when each group keeps only `kept`."""
    keep = graph.keeps(kept)
    parameters: dict[str, dict[int, list[int]]] = {}
    groups: dict[str, int] = {}
    for slot in graph.slots:
        left = np.flatnonzero(keep[slot.ids]).tolist()
        if len(left) == len(slot.ids):
            continue
        for name in (slot.parameter, *graph.aliases[slot.parameter]):
            parameters.setdefault(name, {})[slot.axis] = left
            if slot.parameter in graph.multipliers:
                groups[name.rpartition(".")[0]] = len(left) // graph.multipliers[slot.parameter]
    sizes: dict[str, dict[str, int]] = {}
    for size, ids in graph.attributes.items():
        if not keep[ids].all():
            sizes.setdefault(size.layer, {})[size.attribute] = int(keep[ids].sum())
    return Channels(parameters, groups, sizes)


def apply_channels(network: Any, channels: Channels) -> None:
    """Gives a newly built dense network the structure that `channels` describes; weights that stay keep their values.

    Raises UserError when the network has not the parameters that `channels` names.
    """
    _check(network, channels)
    if isinstance(network, ExportedNetwork):
        network.prune(channels.kept, channels.sizes)
        return
    state = network.state_dict()
    pruned: set[int] = set()
    for name, axes in channels.kept.items():
        if id(state[name]) not in pruned:  # layers may share a parameter under several names
            pruned.add(id(state[name]))
            _prune_parameter(state[name], axes)
    layers = dict(network.named_sublayers(include_self=True))
    for path, groups in channels.groups.items():
        if path in layers:  # a layer with several names is listed under one of them
            layers[path]._groups = groups
    for path, sizes in channels.sizes.items():
        for attribute, size in sizes.items():
            setattr(layers[path], attribute, size)
    for layer in layers.values():
        _update_printed_sizes(layer)


def _check(network: Any, channels: Channels) -> None:
    state = network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name, axes in channels.kept.items():
        if name not in shapes:
            raise UserError(
                f"channels were pruned of {name}, which {type(network).__name__} does not have: build the network "
                "they were pruned of"
            )
        for axis, indices in axes.items():
            size = shapes[name][axis] if axis < len(shapes[name]) else 0
            invalid = [index for index in indices if not isinstance(index, int) or not 0 <= index < size]
            if invalid or not indices:
                kept = f"index {invalid[0]!r}" if invalid else "nothing"
                raise UserError(f"{name} has {size} channels on axis {axis}, but {kept} is to be kept")


def _prune_parameter(parameter: Any, axes: Mapping[int, list[int]]) -> None:
    """Replaces a parameter's array by a smaller one and keeps the object, so that whatever refers to it still does."""
    paddle = import_paddle()
    value = parameter.numpy()
    for axis, indices in axes.items():
        value = value.take(indices, axis)
    parameter.clear_gradient(False)
    on_gpu = parameter.place.is_gpu_place()
    place = paddle.CUDAPlace(parameter.place.gpu_device_id()) if on_gpu else paddle.CPUPlace()
    parameter.value().get_tensor().set(np.ascontiguousarray(value), place)


def _update_printed_sizes(layer: Any) -> None:
    """Paddle's layers store their sizes a second time, for their printed form only."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return
    kind = type(layer).__name__
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        layer._out_channels, layer._in_channels = weight.shape[0], weight.shape[1] * layer._groups
    elif kind in ("BatchNorm1D", "BatchNorm2D", "BatchNorm3D", "SyncBatchNorm"):
        layer._num_features = weight.shape[0]
