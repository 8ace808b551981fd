"""How much a channel is worth. A criterion gives every channel of a group a score; the least go first.

The norms are relative to the mean of their layer, so that every layer's channels are worth 1 on average; taylor is in
units of the squared loss, bn_scale in those of batch norm's scale, random from 0 to 1.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGroup, Member
from segslim.channels.walk import CARRIES, CONSUMES
from segslim.errors import UserError
from segslim.plugins import import_path, is_path

Array = NDArray[np.floating]
Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Evidence:
    """What a criterion may judge by.

    weights: the network's, by state-dict name; gradients: of the loss of one mini-batch, by the same names, for the
    criteria that want them; seed: for those that draw.
    """

    weights: Weights
    gradients: Weights = field(default_factory=dict)
    seed: int = 0


def l1_norm(group: ChannelGroup, evidence: Evidence) -> Array:
    """The L1 norm of a channel's filters (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""
    return of_filters(group, evidence, lambda filters: np.abs(filters).sum(1))


def l2_norm(group: ChannelGroup, evidence: Evidence) -> Array:
    """The L2 norm of a channel's filters (He et al., Soft Filter Pruning, IJCAI 2018)."""
    return of_filters(group, evidence, lambda filters: np.sqrt(np.square(filters).sum(1)))


def fpgm(group: ChannelGroup, evidence: Evidence) -> Array:
    """How far a channel's filters are from all others of their layer: those nearest the geometric median, which the
    others can stand in for, go first (He et al., Filter Pruning via Geometric Median, CVPR 2019).
    """
    return of_filters(group, evidence, _summed_distances)


def bn_scale(group: ChannelGroup, evidence: Evidence) -> Array:
    """The scale |gamma| of the batch norms that normalize a channel, their mean where there are several (Liu et al.,
    Network Slimming, ICCV 2017).

    A channel without batch norm is judged by its L1 norm, whose mean is 1: what a batch norm's scale begins with.
    """
    scales = [member for member in group.members if _is_scale(member, evidence.weights)]
    if not scales:
        return l1_norm(group, evidence)
    means = []
    for member in scales:
        mine = member.index >= 0
        found = np.abs(np.asarray(evidence.weights[member.parameter], np.float64))[mine]
        means.append(_summed(group, member, found) / np.bincount(member.index[mine], minlength=group.size))
    return np.mean(means, axis=0)


def taylor(group: ChannelGroup, evidence: Evidence) -> Array:
    """The squared first-order change of the loss where a channel goes (Molchanov et al., Importance Estimation for
    Neural Network Pruning, CVPR 2019): (sum of gradient x weight) ** 2.

    The sum is over the weights by which the channel is read, where it comes to sum(gradient x activation), the gradient
    of a gate on the channel, whatever normalized it on its way. Channels that no layer reads (they end in a product of
    activations) are judged by the weights that make them.
    """
    readers = [member for member in group.members if member.role == CONSUMES]
    change = np.zeros(group.size)
    for member in readers or group.producers:
        if member.parameter in evidence.gradients:
            products = _rows(member, evidence.weights) * _rows(member, evidence.gradients)
            change += _summed(group, member, products.sum(1)[member.index >= 0])
    return np.square(change)


def random(group: ChannelGroup, evidence: Evidence) -> Array:
    """Drawn from the seed and the group's name: what every other criterion has to beat."""
    return np.random.default_rng((evidence.seed, zlib.crc32(group.name.encode()))).random(group.size)


@dataclass(frozen=True)
class Criterion:
    """score: the scores of one group's channels; by_gradient: it is asked for every mini-batch, and the mean counts."""

    score: Callable[[ChannelGroup, Evidence], Array]
    by_gradient: bool = False


CRITERIA: Mapping[str, Criterion] = {
    "l1_norm": Criterion(l1_norm),
    "l2_norm": Criterion(l2_norm),
    "fpgm": Criterion(fpgm),
    "bn_scale": Criterion(bn_scale),
    "taylor": Criterion(taylor, by_gradient=True),
    "random": Criterion(random),
}


def criterion_of(name: str) -> Criterion:
    """Of CRITERIA, or the Criterion, or its `score`, at `package.module:name`. Raises UserError where there is none."""
    if is_path(name):
        found = import_path(name, "compress.criterion")
        return found if isinstance(found, Criterion) else Criterion(found)
    if name not in CRITERIA:
        choices = ", ".join(CRITERIA)
        raise UserError(f"compress.criterion={name}: should be one of {choices}, or package.module:function")
    return CRITERIA[name]


def of_filters(group: ChannelGroup, evidence: Evidence, measure: Callable[[Array], Array]) -> Array:
    """`measure` maps the filters of a layer (filters, weights of each) to one number for each filter.

    Where several layers make a channel (they are summed, or normalized together), each layer's numbers are first
    divided by their mean, so that all have an equal say.
    """
    total = np.zeros(group.size)
    for member in group.producers:
        found = _summed(group, member, measure(_rows(member, evidence.weights))[member.index >= 0])
        total += found / max(found.mean(), np.finfo(float).tiny)
    return total / len(group.producers)


def _rows(member: Member, arrays: Weights) -> Array:
    """(positions on the member's axis, all else) of a parameter or its gradient."""
    array = np.moveaxis(np.asarray(arrays[member.parameter], np.float64), member.axis, 0)
    return array.reshape(len(array), -1)


def _summed(group: ChannelGroup, member: Member, values: Array) -> Array:
    """For each channel, the sum of the values at the positions that belong to it."""
    return np.bincount(member.index[member.index >= 0], values, group.size).astype(np.float64)


def _summed_distances(filters: Array) -> Array:
    squares = np.square(filters).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * filters @ filters.T, 0))
    np.fill_diagonal(distances, 0)
    return distances.sum(1)


def _is_scale(member: Member, weights: Weights) -> bool:
    layer, _, name = member.parameter.rpartition(".")
    return member.role == CARRIES and name == "weight" and f"{layer}._mean" in weights
