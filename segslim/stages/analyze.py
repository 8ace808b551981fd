"""analyze: dataset, checkpoint -> sensitivity. How much mIoU goes when one group alone loses some of its channels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segslim.channels import ChannelGraph
from segslim.channels.criteria import score as score_channels
from segslim.channels.masking import masked_model
from segslim.channels.sensitivity import measure
from segslim.config import Config
from segslim.deployment.export import export_onnx
from segslim.engines import open_session
from segslim.networks.checkpoint import load_checkpoint
from segslim.networks.weights import weights_of
from segslim.pipeline.stage import Workspace
from segslim.stages.before import source
from segslim.stages.sessions import threads
from segslim.stages.validation import batches, score


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes sensitivity.json. One graph is exported; its channels are masked by inputs: no pruning needs another."""
    analysis = config.compress.analysis
    assert analysis is not None and config.compress.criterion is not None  # check_pruning saw to it
    width, height = config.dataset.size
    network = load_checkpoint(inputs["checkpoint"]).network
    graph = ChannelGraph.trace(network, (1, 3, height, width))
    scores = score_channels(config.compress.criterion, graph, weights_of(network))
    export_onnx(network, workspace.scratch / "network.onnx", (1, 3, height, width), output="argmax")
    masked = masked_model(workspace.scratch / "network.onnx", workspace.scratch / "masked.onnx", graph)
    session = open_session("onnxruntime", workspace.scratch / "masked.onnx", threads=threads(config))
    pairs = source(config).pairs(inputs["dataset"], "val")
    chosen = evenly(len(pairs), analysis.images)
    images = list(batches(config, [pairs[i] for i in chosen]))  # read once, judged by often

    def miou(removed: Mapping[str, np.ndarray]) -> float:
        return score(session, config, images, **masked.masks(removed)).miou

    found = measure(
        graph, scores, analysis.ratios, miou, lambda done, total: workspace.progress("one group at a time", done, total)
    )
    found.save(workspace.artifact / "sensitivity.json")
    evaluations = sum(map(len, found.losses.values()))
    return f"{len(found.losses)} groups, {evaluations} prunings on {len(chosen)} images"


def evenly(count: int, wanted: int | None) -> list[int]:
    """`wanted` of `count` positions, spread evenly, since neighbours in a list are often frames of one film."""
    return list(range(count)) if wanted is None or wanted >= count else [i * count // wanted for i in range(wanted)]
