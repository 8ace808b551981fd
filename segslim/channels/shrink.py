"""Takes channels out of a network, in place, and remembers which so that a freshly built network can be given the
same structure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segslim.channels.graph import ChannelGraph, Kept
from segslim.errors import UserError
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
        """The same as taking out first these channels, then `later`, whose indices are those of the network without
        the first.
        """
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
        kept = {name: {str(axis): indices for axis, indices in axes.items()} for name, axes in self.kept.items()}
        return {
            "kept": kept,
            "groups": dict(self.groups),
            "sizes": {layer: dict(sizes) for layer, sizes in self.sizes.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Channels":
        kept = {
            name: {int(axis): list(indices) for axis, indices in axes.items()} for name, axes in value["kept"].items()
        }
        return cls(kept, dict(value["groups"]), {layer: dict(sizes) for layer, sizes in value["sizes"].items()})


def shrink(network: Any, graph: ChannelGraph, kept: Kept, before: Channels | None = None) -> Channels:
    """Takes all but `kept` out of `network`, in place: its Parameter objects stay, with fewer elements.

    An optimizer that has seen the network keeps state of the old shapes and must be rebuilt. `before`: what an earlier
    shrink left of the dense network, if any. Returns what is left of the dense network now.
    """
    channels = channels_of(graph, kept)
    apply_channels(network, channels)
    return before.then(channels) if before else channels


def apply_channels(network: Any, channels: Channels) -> None:
    """Gives a freshly built dense network the structure that `channels` describes; weights that stay keep their values.

    Raises UserError when the network is not the one the channels were taken out of.
    """
    state = network.state_dict()
    _check(channels, {name: tuple(value.shape) for name, value in state.items()}, type(network).__name__)
    done: set[int] = set()
    for name, axes in channels.kept.items():
        if id(state[name]) not in done:
            done.add(id(state[name]))
            _cut(state[name], axes)
    layers = dict(network.named_sublayers(include_self=True))
    for path, groups in channels.groups.items():
        if path in layers:  # a layer with several names is listed under one of them
            layers[path]._groups = groups
    for path, sizes in channels.sizes.items():
        for attribute, size in sizes.items():
            setattr(layers[path], attribute, size)
    for layer in layers.values():
        _describe(layer)


def _check(channels: Channels, shapes: Mapping[str, tuple[int, ...]], network: str) -> None:
    for name, axes in channels.kept.items():
        if name not in shapes:
            raise UserError(f"channels were taken out of {name}, which {network} does not have: build it as it was")
        for axis, indices in axes.items():
            size = shapes[name][axis] if axis < len(shapes[name]) else 0
            strange = [index for index in indices if not isinstance(index, int) or not 0 <= index < size]
            if strange or not indices:
                kept = f"index {strange[0]!r}" if strange else "nothing"
                raise UserError(f"{name} has {size} channels on axis {axis}, but {kept} is to be kept")


def channels_of(graph: ChannelGraph, kept: Kept) -> Channels:
    """What is left of the traced network's parameters when only `kept` of each group is."""
    keep = graph.keeps(kept)
    cut: dict[str, dict[int, list[int]]] = {}
    groups: dict[str, int] = {}
    for slot in graph.slots:
        left = np.flatnonzero(keep[slot.ids]).tolist()
        if len(left) == len(slot.ids):
            continue
        for name in (slot.parameter, *graph.aliases[slot.parameter]):
            cut.setdefault(name, {})[slot.axis] = left
            if slot.parameter in graph.multipliers:
                groups[name.rpartition(".")[0]] = len(left) // graph.multipliers[slot.parameter]
    sizes: dict[str, dict[str, int]] = {}
    for stored, ids in graph.stored.items():
        if not keep[ids].all():
            sizes.setdefault(stored.layer, {})[stored.attribute] = int(keep[ids].sum())
    return Channels(cut, groups, sizes)


def _cut(parameter: Any, axes: Mapping[int, list[int]]) -> None:
    """Replaces a parameter's array by a smaller one and keeps the object, so that whatever refers to it still does."""
    paddle = import_paddle()
    value = parameter.numpy()
    for axis, indices in axes.items():
        value = value.take(indices, axis)
    parameter.clear_gradient(False)
    on_gpu = parameter.place.is_gpu_place()
    place = paddle.CUDAPlace(parameter.place.gpu_device_id()) if on_gpu else paddle.CPUPlace()
    parameter.value().get_tensor().set(np.ascontiguousarray(value), place)


def _describe(layer: Any) -> None:
    """Layers of Paddle also write down their sizes, for their printed form only."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return
    kind = type(layer).__name__
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        layer._out_channels, layer._in_channels = weight.shape[0], weight.shape[1] * layer._groups
    elif kind in ("BatchNorm1D", "BatchNorm2D", "BatchNorm3D", "SyncBatchNorm"):
        layer._num_features = weight.shape[0]
