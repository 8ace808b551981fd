"""What each channel is worth. A criterion gives every channel of a group a score; the least go first.

The norms are relative to the mean of their layer, so that every layer's channels are worth 1 on average; taylor and
fisher are in units of the squared loss, bn_scale in those of batch norm's scale, random from 0 to 1.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph, ChannelGroup, Member
from segslim.channels.walk import CARRIES, CONSUMES
from segslim.errors import UserError
from segslim.plugins import import_path, is_path

Array = NDArray[np.floating]
Weights = Mapping[str, Array]


class Importance(dict[str, Array]):
    """A number for each channel of each scored group, by the group's name. Groups that are absent keep all channels."""

    def save(self, folder: Path) -> None:
        safetensors.numpy.save_file(dict(self), folder / "importance.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Importance":
        return cls(safetensors.numpy.load_file(folder / "importance.safetensors"))


@dataclass(frozen=True)
class CriterionInputs:
    """What a criterion may judge by.

    weights: the network's, by state-dict name; gradients: of the loss of one mini-batch, by the same names, for the
    criteria that want them; seed: for those that draw.
    """

    weights: Weights
    gradients: Weights = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Criterion:
    """score: computes the scores of one group's channels; by_gradient: it is called for every mini-batch, and the mean
    counts; drawn_labels: the gradients are of labels drawn from the network's own prediction; by_activations: groups
    are not scored one by one, but by `obc_importance`, which runs the network on images.
    """

    score: Callable[[ChannelGroup, CriterionInputs], Array]
    by_gradient: bool = False
    drawn_labels: bool = False
    by_activations: bool = False


def score(
    criterion: str,
    graph: ChannelGraph,
    weights: Weights,
    gradients: Iterable[Weights] = (),
    seed: int = 0,
    skip: Sequence[str] = (),
) -> Importance:
    """Scores every channel of every prunable group.

    Args:
        criterion: a name in CRITERIA, or package.module:name.
        graph: of the network.
        weights: the network's, by state-dict name.
        gradients: by the same names, of the loss of each mini-batch, read one after the other; only for criteria that
            judge by them.
        seed: for criteria that draw.
        skip: fnmatch patterns of layers and parameters whose groups get no scores, so that they keep all channels.

    Raises UserError for an unknown criterion, one that judges by gradients without any, or a pattern without a layer.
    """
    chosen = criterion_of(criterion)
    groups = unskipped_groups(graph, skip)
    if not chosen.by_gradient:
        inputs = CriterionInputs(weights, seed=seed)
        return Importance({group.name: chosen.score(group, inputs) for group in groups})
    total, batches = {group.name: np.zeros(group.size) for group in groups}, 0
    for batch in gradients:
        batches += 1
        inputs = CriterionInputs(weights, batch, seed)
        for group in groups:
            total[group.name] += chosen.score(group, inputs)
    if not batches:
        raise UserError(f"criterion {criterion!r} judges by gradients: give those of at least one mini-batch")
    return Importance({name: scores / batches for name, scores in total.items()})


def unskipped_groups(graph: ChannelGraph, skip: Sequence[str]) -> list[ChannelGroup]:
    """The prunable groups that no pattern of `skip` matches by a layer or parameter that makes or carries the channels.

    A pattern is compared with the parameter's name and those of all layers around it (a.b.weight, a.b, a), so `head`
    and `head.*` are the same. Raises UserError naming a pattern that matches nothing.
    """

    def names(parameter: str) -> list[str]:
        own = (parameter, *graph.aliases[parameter])
        return [name for full in own for name in accumulate(full.split("."), lambda path, part: f"{path}.{part}")]

    skipped: set[str] = set()
    for pattern in skip:
        matching = {p for p in graph.parameter_shapes if any(fnmatchcase(name, pattern) for name in names(p))}
        if not matching:
            layers = sorted({parameter.rpartition(".")[0] for parameter in graph.parameter_shapes})
            examples = ", ".join(layers[:: max(1, len(layers) // 5)][:5])
            raise UserError(f"compress.skip: {pattern!r} matches none of the {len(layers)} layers: {examples}, ...")
        skipped |= matching
    return [
        group
        for group in graph.prunable_groups
        # a layer that only reads the channels keeps its filters whatever becomes of them
        if not any(member.parameter in skipped for member in group.members if member.role != CONSUMES)
    ]


def l1_norm(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """The L1 norm of a channel's filters (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""
    return score_filters(group, inputs, lambda filters: np.abs(filters).sum(1))


def l2_norm(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """The L2 norm of a channel's filters (He et al., Soft Filter Pruning, IJCAI 2018)."""
    return score_filters(group, inputs, lambda filters: np.sqrt(np.square(filters).sum(1)))


def fpgm(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """The summed distance of a channel's filters to all others of their layer: those nearest the geometric median,
    which the others can replace, go first (He et al., Filter Pruning via Geometric Median, CVPR 2019).
    """

    def summed_distances(filters: Array) -> Array:
        squares = np.square(filters).sum(1)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab takes no array of filters x filters x weights; rounding may leave it below 0
        distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * filters @ filters.T, 0))
        np.fill_diagonal(distances, 0)
        return distances.sum(1)

    return score_filters(group, inputs, summed_distances)


def bn_scale(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """The scale |gamma| of the batch norms that normalize a channel, their mean where there are several (Liu et al.,
    Network Slimming, ICCV 2017).

    A channel without batch norm is judged by its L1 norm, whose mean is 1: what a batch norm's scale begins with.
    """
    means = []
    for member in group.members:
        layer, _, name = member.parameter.rpartition(".")
        if member.role == CARRIES and name == "weight" and f"{layer}._mean" in inputs.weights:  # a batch norm's
            own = member.index >= 0
            gamma = np.abs(np.asarray(inputs.weights[member.parameter], np.float64))[own]
            means.append(_summed(group, member, gamma) / np.bincount(member.index[own], minlength=group.size))
    return np.mean(means, axis=0) if means else l1_norm(group, inputs)


def taylor(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """The squared first-order change of the loss when a channel is removed (Molchanov et al., Importance Estimation for
    Neural Network Pruning, CVPR 2019): (sum of gradient x weight) ** 2.

    The sum is over the weights by which the channel is read, where it equals sum(gradient x activation), the gradient
    of a gate on the channel, whatever normalized it before. Channels that no layer reads (they end in a product of
    activations) are judged by the weights that make them.
    """
    readers = [member for member in group.members if member.role == CONSUMES]
    change = np.zeros(group.size)
    for member in readers or group.producers:
        if member.parameter in inputs.gradients:  # the loss depends on no weight without a gradient
            products = _rows(member, inputs.weights) * _rows(member, inputs.gradients)
            change += _summed(group, member, products.sum(1)[member.index >= 0])
    return np.square(change)


def random(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """Drawn from the seed and the group's name: the baseline for every other criterion."""
    return np.random.default_rng((inputs.seed, zlib.crc32(group.name.encode()))).random(group.size)


def obc(group: ChannelGroup, inputs: CriterionInputs) -> Array:
    """What the network's output loses although the layers that read the channels are refitted: see `obc_importance`."""
    raise UserError("criterion obc judges by activations: call segslim.channels.obc.obc_importance")


CRITERIA: Mapping[str, Criterion] = {
    "l1_norm": Criterion(l1_norm),
    "l2_norm": Criterion(l2_norm),
    "fpgm": Criterion(fpgm),
    "bn_scale": Criterion(bn_scale),
    "taylor": Criterion(taylor, by_gradient=True),
    "fisher": Criterion(taylor, by_gradient=True, drawn_labels=True),
    "obc": Criterion(obc, by_activations=True),
    "random": Criterion(random),
}


def criterion_of(name: str) -> Criterion:
    """The criterion called `name` in CRITERIA, or the Criterion or score function at `package.module:name`.

    Raises UserError where there is none.
    """
    if is_path(name):
        imported = import_path(name, "compress.criterion")
        return imported if isinstance(imported, Criterion) else Criterion(imported)
    if name not in CRITERIA:
        choices = ", ".join(CRITERIA)
        raise UserError(f"compress.criterion={name}: should be one of {choices}, or package.module:function")
    return CRITERIA[name]


def score_filters(group: ChannelGroup, inputs: CriterionInputs, measure: Callable[[Array], Array]) -> Array:
    """Scores channels by the filters that make them.

    `measure` maps the filters of a layer, (filters, weights of each), to one number for each filter. Where several
    layers make a channel (they are summed, or normalized together), each layer's numbers are first divided by their
    mean, so that all count equally.
    """
    total = np.zeros(group.size)
    for member in group.producers:
        numbers = _summed(group, member, measure(_rows(member, inputs.weights))[member.index >= 0])
        total += numbers / max(numbers.mean(), np.finfo(float).tiny)
    return total / len(group.producers)


def _rows(member: Member, arrays: Weights) -> Array:
    """(positions on the member's axis, all else) of a parameter or its gradient."""
    array = np.moveaxis(np.asarray(arrays[member.parameter], np.float64), member.axis, 0)
    return array.reshape(len(array), -1)


def _summed(group: ChannelGroup, member: Member, values: Array) -> Array:
    """For each channel, the sum of the values at the positions that belong to it."""
    return np.bincount(member.index[member.index >= 0], values, group.size).astype(np.float64)
