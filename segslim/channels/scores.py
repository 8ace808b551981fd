"""The scores of all channels that may go, and the file that keeps them."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path

import numpy as np
import safetensors.numpy

from segslim.channels.criteria import Array, Evidence, Weights, criterion_of
from segslim.channels.graph import ChannelGraph, ChannelGroup
from segslim.channels.walk import CONSUMES
from segslim.errors import UserError

#: By the group's name, one for each of its channels. Groups that are absent keep all.
Scores = dict[str, Array]


class Importance(dict[str, Array]):
    """Scores as an artifact."""

    def save(self, folder: Path) -> None:
        save_scores(dict(self), folder)

    @staticmethod
    def load(folder: Path) -> "Importance":
        return Importance(load_scores(folder))


FILE = "scores.safetensors"
_NAMED = 5  # so many layers are named in an error


def score(
    criterion: str,
    graph: ChannelGraph,
    weights: Weights,
    gradients: Iterable[Weights] = (),
    seed: int = 0,
    skip: Sequence[str] = (),
) -> Scores:
    """Scores every channel of every prunable group but those of layers to `skip`.

    weights: the network's, by state-dict name; gradients: the same of the loss of each mini-batch, read one after the
    other, for the criteria that judge by them; skip: patterns (fnmatch) of layers and parameters that keep their
    filters.

    Raises UserError for an unknown criterion, one that judges by gradients without any, or a pattern without a layer.
    """
    chosen = criterion_of(criterion)
    groups = without_skipped(graph, skip)
    if not chosen.by_gradient:
        evidence = Evidence(weights, seed=seed)
        return {group.name: chosen.score(group, evidence) for group in groups}
    total, batches = {group.name: np.zeros(group.size) for group in groups}, 0
    for batch in gradients:
        batches += 1
        evidence = Evidence(weights, batch, seed)
        for group in groups:
            total[group.name] += chosen.score(group, evidence)
    if not batches:
        raise UserError(f"criterion {criterion!r} judges by gradients: give those of at least one mini-batch")
    return {name: scores / batches for name, scores in total.items()}


def without_skipped(graph: ChannelGraph, patterns: Sequence[str]) -> list[ChannelGroup]:
    """The prunable groups of which no layer or parameter that makes or carries the channels matches a pattern.

    A pattern is matched with the parameter's name and those of all layers around it, so `head` and `head.*` are the
    same. Raises UserError naming a pattern that matches nothing.
    """
    names = {parameter: _names(parameter, graph) for parameter in graph.parameter_shapes}
    matching = {
        pattern: {parameter for parameter, known in names.items() if any(fnmatchcase(name, pattern) for name in known)}
        for pattern in patterns
    }
    for pattern, found in matching.items():
        if not found:
            layers = sorted({parameter.rpartition(".")[0] for parameter in names})
            some = ", ".join(layers[:: max(1, len(layers) // _NAMED)][:_NAMED])
            raise UserError(f"compress.skip: {pattern!r} matches none of the {len(layers)} layers: {some}, ...")
    skipped = set().union(*matching.values())
    return [
        group
        for group in graph.prunable_groups
        if not any(member.parameter in skipped for member in group.members if member.role != CONSUMES)
    ]


def save_scores(scores: Scores, folder: Path) -> None:
    safetensors.numpy.save_file(scores, folder / FILE)


def load_scores(folder: Path) -> Scores:
    found: Scores = safetensors.numpy.load_file(folder / FILE)
    return found


def _names(parameter: str, graph: ChannelGraph) -> list[str]:
    """A parameter's own names and those of the layers that contain it: a.b.weight, a.b, a."""
    own = (parameter, *graph.aliases[parameter])
    return [name for full in own for name in accumulate(full.split("."), lambda path, part: f"{path}.{part}")]
