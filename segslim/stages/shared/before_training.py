"""What a later stage would refuse whatever the weights become: known once the network is built, and told before it is
trained. No part of a training's fingerprint, since it changes nothing of the result.
"""

from pathlib import Path
from typing import Any

import numpy as np

from segslim.channels.budget import check_reachable
from segslim.channels.scores import Scores, without_skipped
from segslim.config import Config
from segslim.deployment.export import check_any_size
from segslim.quantization.calibration import check_image_count
from segslim.quantization.qat import check_layer_types, match_layers
from segslim.stages.shared.graphs import channel_graph
from segslim.stages.shared.pairs import usable_pairs


def check_strategy(network: Any, config: Config, dataset: Path, scratch: Path) -> None:
    """Raises UserError for a key of a later stage that does not fit this network, or these training images."""
    stages = config.compress.stages
    if "prune" in stages:
        _check_pruning(network, config)
    if "quantize" in stages:
        _check_quantization(network, config)
        check_image_count(len(usable_pairs(config, dataset, "train")))
    if "export" in stages and config.export.fixed_size is None:  # that of a fixed size is tried by the first evaluation
        check_any_size(network, scratch / "any-size.onnx", config.export.output)


def _check_pruning(network: Any, config: Config) -> None:
    compress = config.compress
    graph = channel_graph(network, config)
    scores: Scores = {group.name: np.zeros(group.size) for group in without_skipped(graph, compress.skip)}
    if compress.target == "flops" and compress.ratio is not None:
        # in a second step, a global allocation may take of what it had to leave in the first
        limited = compress.allocation == "global" and len(compress.schedule) == 1
        check_reachable(graph, scores, compress.ratio, "global" if limited else "uniform")


def _check_quantization(network: Any, config: Config) -> None:
    compress = config.compress
    if compress.keep_float != "auto":
        match_layers(network, compress.keep_float)
    if compress.qat is not None:
        check_layer_types(network, compress.qat.quantizable_layer_type)
