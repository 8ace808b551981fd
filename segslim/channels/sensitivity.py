"""How much mIoU a network loses when one group alone loses some of its channels."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.channels.graph import ChannelGraph


@dataclass(frozen=True)
class Sensitivity:
    """losses: for each group, the loss of mIoU (absolute, below 0 where it rose) by the share of its channels
    removed.
    """

    baseline: float
    losses: Mapping[str, Mapping[float, float]]

    def save(self, file: Path) -> None:
        losses = {group: {repr(share): loss for share, loss in curve.items()} for group, curve in self.losses.items()}
        file.write_text(json.dumps({"baseline": self.baseline, "losses": losses}, indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> "Sensitivity":
        value = json.loads(file.read_text())
        losses = {
            group: {float(share): loss for share, loss in curve.items()} for group, curve in value["losses"].items()
        }
        return cls(value["baseline"], losses)


@dataclass(frozen=True)
class Trial:
    """One evaluation: a group without its least channels."""

    group: str
    share: float
    removed: dict[str, NDArray[np.integer]]


def trials(graph: ChannelGraph, scores: Mapping[str, NDArray[np.floating]], ratios: Sequence[float]) -> list[Trial]:
    """One trial for every group and ratio. Ratios that come to the same number of channels, to none or to all are
    one trial or none.
    """
    found = []
    for group in graph.prunable_groups:
        order = np.argsort(scores[group.name], kind="stable")
        counts = sorted({min(round(group.size * ratio), group.size - 1) for ratio in ratios} - {0})
        found += [Trial(group.name, count / group.size, {group.name: np.sort(order[:count])}) for count in counts]
    return found


def measure(
    graph: ChannelGraph,
    scores: Mapping[str, NDArray[np.floating]],
    ratios: Sequence[float],
    evaluate: Callable[[dict[str, NDArray[np.integer]]], float],
    progress: Callable[[int, int], Any] = lambda done, total: None,
    workers: int = 1,
) -> Sensitivity:
    """Evaluates the network once for every trial and once whole.

    scores: of every channel, the least are removed first; ratios: shares of a group's channels to remove; evaluate:
    from the channels removed of each group to mIoU (a masked run: `MaskedModel.masks` turns the one into inputs);
    progress: called with (done, total); workers: threads that evaluate at the same time.
    """
    planned = trials(graph, scores, ratios)
    baseline = evaluate({})
    losses: dict[str, dict[float, float]] = {}
    with ThreadPoolExecutor(workers) as pool:
        for done, (trial, miou) in enumerate(
            zip(planned, pool.map(evaluate, [t.removed for t in planned]), strict=True)
        ):
            losses.setdefault(trial.group, {})[trial.share] = baseline - miou
            progress(done + 1, len(planned))
    return Sensitivity(baseline, losses)
