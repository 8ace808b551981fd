"""PaddleSlim's L1NormFilterPruner in segslim's terms. It needs a Paddle no newer than 2.6.2."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segslim.channels import ChannelGraph, Sensitivity
from segslim.paddle_compat import import_paddle

import_paddle()
warnings.filterwarnings("ignore")  # of pkg_resources and distutils, which paddleslim imports

from paddleslim.dygraph import L1NormFilterPruner  # noqa: E402

RATIOS = [tenth / 10 for tenth in range(1, 10)]  # fixed in FilterPruner._cal_sensitive


class PaddleSlimPruner:
    """collections: PaddleSlim's form of a group, by segslim's name for it; found: how many there are in all."""

    def __init__(self, network: Any, input_shape: tuple[int, ...], graph: ChannelGraph):
        self._pruner = L1NormFilterPruner(network, input_shape)
        self._sizes = {group.name: group.size for group in graph.prunable_groups}
        names = {
            graph.tensors[made.parameter]: group.name for group in graph.prunable_groups for made in group.producers
        }
        everything = list(self._pruner.collections)
        self.found = len(everything)
        self.collections = {names[c.master_name]: c for c in everything if c.master_name in names}

    def removed(self, group: str, share: float) -> np.ndarray:
        """The channels that it takes out of a group when that is to lose `share` of them."""
        return np.flatnonzero(self._pruner.cal_mask(share, self.collections[group]) == 0)

    def sensitivity(
        self, evaluate: Callable[[], float], groups: Sequence[str], ratios: Sequence[float], scratch: Path
    ) -> Sensitivity:
        """Prunes the network, evaluates and restores it, for each of `groups` and `ratios` (of `RATIOS`).

        PaddleSlim gives losses as shares of baseline + 0.001; here they become differences.
        """
        mious: list[float] = []

        def evaluate_and_note() -> float:
            mious.append(evaluate())
            return mious[-1]

        masters = {group: self.collections[group].master_name for group in groups}
        unwanted = set(RATIOS) - set(ratios)
        self._pruner.sensitive().update({m: dict.fromkeys(unwanted) for m in masters.values()})  # counts as measured
        found = self._pruner.sensitive(evaluate_and_note, str(scratch / "status"), target_vars=list(masters.values()))
        losses: dict[str, dict[float, float]] = {group: {} for group in groups}
        for group, master in masters.items():
            for ratio in ratios:
                count = min(round(ratio * self._sizes[group]), self._sizes[group] - 1)
                losses[group][count / self._sizes[group]] = found[master][ratio] * (mious[0] + 1e-3)
        return Sensitivity(mious[0], losses)
