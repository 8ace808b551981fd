"""export: checkpoint -> deployment. Paddle inference model, deploy.yaml and ONNX, checked; and what the file costs.

Of a checkpoint with quantization.yaml the ONNX file becomes int8, and is the only model that is deployed; Paddle 2.6
writes the same in its own format beside it, for TensorRT in Paddle Inference.
"""

from collections.abc import Mapping
from pathlib import Path

from segslim.colours import palette
from segslim.config import Config
from segslim.deployment.export import export
from segslim.networks.checkpoint import load_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.quantization.table import Table
from segslim.stages.shared.transforms import deploy_form


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the deployment and cost.json {flops, params, size_bytes}, counted on the ONNX file."""
    deployment = export(
        load_checkpoint(inputs["checkpoint"]).network,
        workspace.artifact,
        size=config.export.fixed_size,
        output=config.export.output,
        transforms=[deploy_form(node) for node in config.dataset.val_transforms],
        tolerance=config.export.tolerance,
        classes=config.dataset.classes,
        colours=palette(config.dataset.num_classes, config.dataset.colours),
        quantization=Table.load(inputs["checkpoint"]),
        cost_size=config.dataset.size,
    )
    size, difference = deployment.cost.size_bytes / 1e6, deployment.report.difference
    return f"{size:.2f} MB, {difference:.1e} from the network it came from"
