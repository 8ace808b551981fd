"""export: checkpoint -> deployment. Paddle inference model, deploy.yaml and ONNX, checked; and what the file costs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from segslim.colours import palette
from segslim.config import Config
from segslim.deployment.export import export
from segslim.deployment.onnx_cost import onnx_cost
from segslim.networks.checkpoint import load_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.stages.transforms import deploy_form


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the deployment and cost.json {flops, params, size_bytes}, counted on the ONNX file."""
    network = load_checkpoint(inputs["checkpoint"]).network
    size = None if config.export.size == "dynamic" else config.export.size
    report = export(
        network,
        workspace.artifact,
        size=size,
        output=config.export.output,
        transforms=[deploy_form(node) for node in config.dataset.val_transforms],
        check_tolerance=config.export.tolerance,
        classes=config.dataset.classes,
        colours=palette(config.dataset.num_classes, config.dataset.colours),
    )
    cost = onnx_cost(workspace.artifact / "model.onnx", size or config.dataset.size)
    (workspace.artifact / "cost.json").write_text(json.dumps(dataclasses.asdict(cost)), encoding="utf-8")
    return f"{cost.size_bytes / 1e6:.2f} MB, {report.difference:.1e} from the network it came from"
