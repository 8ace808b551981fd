"""prune: checkpoint, sensitivity where it was measured -> checkpoint of fewer channels."""

from collections.abc import Mapping
from pathlib import Path

from segslim.channels import prune
from segslim.channels.sensitivity import Sensitivity
from segslim.config import Config
from segslim.networks.checkpoint import load_checkpoint, save_checkpoint
from segslim.pipeline.stage import Workspace


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint whose FLOPs are less by compress.ratio.

    With a sensitivity every group loses what costs the same mIoU; without, the same share of its channels.
    """
    compress = config.compress
    assert compress.ratio is not None and compress.criterion is not None  # check_pruning saw to it
    width, height = config.dataset.size
    given = load_checkpoint(inputs["checkpoint"])
    sensitivity = Sensitivity.load(inputs["sensitivity"] / "sensitivity.json") if "sensitivity" in inputs else None
    result = prune(
        given.network,
        (1, 3, height, width),
        ratio=compress.ratio,
        criterion=compress.criterion,
        align=compress.align,
        sensitivity=sensitivity,
        before=given.channels,
    )
    save_checkpoint(workspace.artifact, given.network, given.model, result.channels)
    return f"{result.flops_after / result.flops_before - 1:+.1%} FLOPs"
