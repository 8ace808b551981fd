"""Prunings of a checkpoint as deployments, timed beside the first network in the engine that was selected for it."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from segslim.channels import shrink
from segslim.channels.graph import Kept
from segslim.channels.shrink import channels_of
from segslim.config import Config
from segslim.deployment import Deployment
from segslim.deployment.engines import open_session
from segslim.deployment.export import export
from segslim.deployment.onnx_graph import slice_onnx
from segslim.evaluation.latency import measure
from segslim.networks.checkpoint import load_checkpoint
from segslim.stages.shared.graphs import channel_graph
from segslim.stages.shared.sessions import open_selected, prediction

_log = logging.getLogger(__name__)

#: A latency is this quantile of its samples: other work on the machine can only add to it.
QUICKER = 0.2

#: Writes the deployment of a pruning into a folder that does not exist.
Deploy = Callable[[Kept, Path], None]


class Prunings:
    """given: the checkpoint; graph: its channels; engine: the name of the one that was selected."""

    def __init__(self, inputs: Mapping[str, Path], config: Config, scratch: Path) -> None:
        self._inputs, self._config, self._scratch = inputs, config, scratch
        self.given = load_checkpoint(inputs["checkpoint"])
        self.graph = channel_graph(self.given.network, config)
        self._whole = open_selected(inputs["baseline engine"], inputs["baseline deployment"], config)
        self.engine = self._whole.name

    def measure(
        self, prunings: Sequence[Kept], deploy: Deploy, warmup: int, iters: int, settle: float = 0.25
    ) -> list[float]:
        """The latency of each pruning, in units of the first network's, timed in turns."""
        folders = [self._scratch / f"pruning-{number}" for number in range(len(prunings))]
        sessions = {"whole": self._whole}
        for folder, kept in zip(folders, prunings, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            deploy(kept, folder)
            sessions[folder.name] = open_selected(self._inputs["baseline engine"], folder, self._config)
        runs = {name: prediction(session, self._config) for name, session in sessions.items()}
        timed = measure(runs, warmup, iters, settle)
        whole, *pruned = (np.quantile(timed[name].samples, QUICKER) for name in sessions)
        return [float(latency / whole) for latency in pruned]

    def exported(self, kept: Kept, folder: Path) -> None:
        """By pruning the network itself."""
        network = load_checkpoint(self._inputs["checkpoint"]).network
        shrink(network, self.graph, kept)
        options = self._config.export
        export(network, folder, size=options.fixed_size, output=options.output, tolerance=options.tolerance)

    def slices(self) -> Deploy:
        """As `exported`, by cutting channels out of the unpruned ONNX file, 50 times faster; `exported` itself where
        the engine reads no ONNX, or where that would give another network (a reshape by written numbers).
        """
        if self.engine == "paddle":
            return self.exported
        source = self._inputs["baseline deployment"] / "model.onnx"
        if self._inputs["checkpoint"] != self._inputs["baseline checkpoint"]:
            self.exported({}, self._scratch / "whole")
            source = self._scratch / "whole" / "model.onnx"

        def sliced(kept: Kept, folder: Path) -> None:
            folder.mkdir()
            channels, tensors = channels_of(self.graph, kept), self.graph.tensors
            cut = {tensors[name]: axes for name, axes in channels.kept.items() if name in tensors}
            weights = {f"{layer}.weight": groups for layer, groups in channels.groups.items()}
            groups = {tensors[name]: number for name, number in weights.items() if name in tensors}
            slice_onnx(source, folder / "model.onnx", cut, groups)
            Deployment.write(folder, input_shape=None, output=None)

        if self._equal(sliced, {group.name: np.arange(1, group.size, 2) for group in self.graph.prunable_groups}):
            return sliced
        _log.info("channels cannot be cut out of the ONNX file: each pruning is exported, which takes longer")
        return self.exported

    def _equal(self, sliced: Deploy, kept: Kept) -> bool:
        """Whether a sliced deployment gives what the exported one does."""
        outputs = []
        for name, deploy in (("exported", self.exported), ("sliced", sliced)):
            folder = self._scratch / f"check-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                deploy(kept, folder)
                outputs.append(prediction(open_session("onnxruntime", folder, threads=1), self._config)()[0])
            except Exception as error:  # ONNX Runtime has no base of its own for what it does not load
                if name == "exported":
                    raise
                _log.info("the sliced file does not load: %s", str(error).strip().splitlines()[-1:])
                return False
        theirs, ours = outputs
        if ours.shape != theirs.shape:
            return False
        return bool(np.isclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max()).mean() >= 0.999)
