"""How much mIoU a network loses when one group alone loses some of its channels."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph
from segslim.records import SENSITIVITY, read_record, write_record

#: From the channels removed of each group, in one pruning, to the mIoU of the network without them: over all images,
#: and then with each image left out.
Evaluate = Callable[[dict[str, NDArray[np.integer]]], NDArray[np.float64]]

Curves = Mapping[str, Mapping[float, float]]


@dataclass(frozen=True)
class Sensitivity:
    """losses: for each group, the loss of mIoU (absolute, below 0 where it rose) by the share of its channels
    removed; errors: the standard error of each loss, for want of more images.
    """

    baseline: float
    losses: Curves
    errors: Curves = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        curves = {
            name: {group: {repr(share): value for share, value in curve.items()} for group, curve in groups.items()}
            for name, groups in (("losses", self.losses), ("errors", self.errors))
        }
        write_record(folder, SENSITIVITY, {"baseline": self.baseline, **curves})

    @classmethod
    def load(cls, folder: Path) -> "Sensitivity":
        value = read_record(folder, SENSITIVITY)
        losses, errors = (
            {group: {float(share): one for share, one in curve.items()} for group, curve in value[name].items()}
            for name in ("losses", "errors")
        )
        return cls(value["baseline"], losses, errors)


@dataclass(frozen=True)
class Trial:
    """One evaluation: a group without its least channels."""

    group: str
    share: float
    removed: dict[str, NDArray[np.integer]]


def trials(graph: ChannelGraph, scores: Mapping[str, NDArray[np.floating]], ratios: Sequence[float]) -> list[Trial]:
    """One trial for every scored group and ratio. Ratios that come to the same number of channels, to none or to all
    are one trial or none.
    """
    found = []
    for group in (group for group in graph.prunable_groups if group.name in scores):
        order = np.argsort(scores[group.name], kind="stable")
        counts = sorted({min(round(group.size * ratio), group.size - 1) for ratio in ratios} - {0})
        found += [Trial(group.name, count / group.size, {group.name: np.sort(order[:count])}) for count in counts]
    return found


def measure(
    graph: ChannelGraph,
    scores: Mapping[str, NDArray[np.floating]],
    ratios: Sequence[float],
    evaluate: Evaluate,
    progress: Callable[[int, int], Any] = lambda done, total: None,
    workers: int = 1,
) -> Sensitivity:
    """Evaluates the network once for every trial and once whole.

    scores: of every channel, the least are removed first; ratios: shares of a group's channels to remove; evaluate: a
    masked run (`MaskedModel.masks` turns the removed channels into inputs); progress: called with (done, total);
    workers: threads that evaluate at the same time.
    """
    planned = trials(graph, scores, ratios)
    whole = evaluate({})
    losses: dict[str, dict[float, float]] = {}
    errors: dict[str, dict[float, float]] = {}
    with ThreadPoolExecutor(workers) as pool:
        pruned = pool.map(evaluate, [trial.removed for trial in planned])
        for done, (trial, mious) in enumerate(zip(planned, pruned, strict=True)):
            loss = whole - mious
            losses.setdefault(trial.group, {})[trial.share] = float(loss[0])
            errors.setdefault(trial.group, {})[trial.share] = _jackknife(loss[1:])
            progress(done + 1, len(planned))
    return Sensitivity(float(whole[0]), losses, errors)


def _jackknife(left_out: NDArray[np.float64]) -> float:
    """The standard error of a statistic of n images from its values with each of them left out (Efron, 1982).

    An image without which nothing is labelled says nothing (nan), as if it were not there.
    """
    known = left_out[~np.isnan(left_out)]
    return float(np.sqrt((len(known) - 1) * known.var())) if len(known) > 1 else 0.0
