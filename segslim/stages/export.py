"""export: checkpoint -> deployment. Paddle inference model, deploy.yaml and ONNX, checked; and what the file costs.

Of a checkpoint with quantization.yaml the ONNX file becomes int8, and is the only model that is deployed; Paddle 2.6
writes the same in its own format beside it, for TensorRT in Paddle Inference.
"""

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from segslim.colours import palette
from segslim.config import Config, Qat
from segslim.deployment.export import export, input_shape
from segslim.deployment.onnx_cost import onnx_cost
from segslim.deployment.tracing import DeployedNetwork
from segslim.engines.files import PADDLE_INT8
from segslim.engines.precision import Precision, write_precision
from segslim.networks.checkpoint import load_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.quantization.qat import can_save_paddle_int8, save_paddle_int8
from segslim.quantization.qdq import quantize
from segslim.quantization.spec import QuantizationSpec
from segslim.records import COST, write_record
from segslim.stages.shared.transforms import deploy_form

PADDLE_FILES = ("model.json", "model.pdmodel", "model.pdiparams", "model.pdiparams.info")
logger = logging.getLogger(__name__)


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the deployment and cost.json {flops, params, size_bytes}, counted on the ONNX file."""
    network = load_checkpoint(inputs["checkpoint"]).network
    report = export(
        network,
        workspace.artifact,
        size=config.export.fixed_size,
        output=config.export.output,
        transforms=[deploy_form(node) for node in config.dataset.val_transforms],
        tolerance=config.export.tolerance,
        classes=config.dataset.classes,
        colours=palette(config.dataset.num_classes, config.dataset.colours),
    )
    file = workspace.artifact / "model.onnx"
    cost = onnx_cost(file, config.dataset.size)  # of the float file: int8 multiplies as often
    table = QuantizationSpec.load(inputs["checkpoint"])
    if table is not None:
        if can_save_paddle_int8():
            _paddle_int8(inputs["checkpoint"], table, file, config, workspace.artifact / PADDLE_INT8)
        to_int8(workspace.artifact, table)
        cost = dataclasses.replace(cost, size_bytes=file.stat().st_size)
    write_record(workspace.artifact, COST, cost)
    return f"{cost.size_bytes / 1e6:.2f} MB, {report.difference:.1e} from the network it came from"


def _paddle_int8(checkpoint: Path, table: QuantizationSpec, float_file: Path, config: Config, folder: Path) -> None:
    shape = input_shape(config.export.fixed_size)
    network = load_checkpoint(checkpoint).network

    def deployed(fake: Any) -> DeployedNetwork:
        return DeployedNetwork(fake, config.export.output)

    try:
        save_paddle_int8(network, table, onnx.load(float_file), deployed, folder, shape, dataclasses.asdict(Qat()))
    except Exception as error:  # whatever Paddle's passes raise: the deployment is whole without it
        shutil.rmtree(folder, ignore_errors=True)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        logger.warning("no int8 model in Paddle's format (only TensorRT in Paddle Inference reads it): %s", reason)


def to_int8(deployment: Path, table: QuantizationSpec) -> None:
    """Makes model.onnx int8, writes quantization.json {tensors, integer_nodes, floats: [{tensor, op_type, reason}]} of
    what became int8 and what did not, and drops the Paddle model: Paddle Inference would run it in float."""
    model = onnx.load(deployment / "model.onnx")
    quantized = quantize(model, table)
    onnx.save(model, deployment / "model.onnx")
    write_record(deployment, "quantization.json", quantized)
    for name in PADDLE_FILES:
        (deployment / name).unlink(missing_ok=True)
    write_precision(deployment, Precision("int8", table.compute))
    for left in quantized.floats:
        logger.info("%s (%s) stays float: %s", left.tensor, left.op_type, left.reason)
