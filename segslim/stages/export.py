"""export: checkpoint -> deployment. Paddle inference model, deploy.yaml and ONNX, checked; and what the file costs.

The ONNX file of a quantized checkpoint is int8, and the only model that is deployed; Paddle 2.6 writes the same in its
own format beside it, for TensorRT in Paddle Inference.
"""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

from segslim.colours import palette
from segslim.config import Config, Qat
from segslim.engines.files import PADDLE_INT8
from segslim.engines.precision import Precision, write_precision
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.quantization.spec import QuantizationSpec
from segslim.records import COST, write_record
from segslim.stages.shared import NAMES, PADDLE
from segslim.stages.shared.graphs import export_size

PADDLE_FILES = ("model.json", "model.pdmodel", "model.pdiparams", "model.pdiparams.info")
logger = logging.getLogger(__name__)


@stage(
    gives="deployment",
    reads=["export", "dataset.size", "dataset.num_classes", "dataset.val_transforms", *NAMES],
    packages=(*PADDLE, "paddle2onnx", "onnx"),
)
def export(checkpoint: Checkpoint, config: Config, workspace: Workspace) -> None:
    """Writes the deployment and cost.json {flops, params, size_bytes}, counted on the ONNX file."""
    from segslim.deployment import export as exporting
    from segslim.deployment.onnx_cost import onnx_cost

    report = exporting.export(
        checkpoint.network(),
        workspace.artifact,
        size=export_size(config),
        output=config.export.output,
        transforms=[deploy_form(node) for node in config.dataset.val_transforms],
        tolerance=config.export.tolerance,
        classes=config.dataset.classes,
        colours=palette(config.dataset.num_classes, config.dataset.colours),
    )
    file = workspace.artifact / "model.onnx"
    cost = onnx_cost(file, config.dataset.size)  # of the float file: int8 multiplies as often
    spec = checkpoint.quantization
    if spec is not None and spec.is_int8:
        _paddle_int8(checkpoint, spec, file, config, workspace.artifact / PADDLE_INT8)
        to_int8(workspace.artifact, spec)
        cost = dataclasses.replace(cost, size_bytes=file.stat().st_size)
    elif spec is not None:
        write_precision(workspace.artifact, Precision(compute=spec.compute))
    write_record(workspace.artifact, COST, cost)
    workspace.summarize(f"{cost.size_bytes / 1e6:.2f} MB, {report.difference:.1e} from the network it came from")


@export.check
def check_size(config: Config) -> None:
    """Raises UserError when the deployed network would not take the images that it is evaluated on."""
    size = export_size(config)
    if size not in (None, config.dataset.size):
        width, height = config.dataset.size
        raise UserError(
            f"export.size={list(size)}: should be dynamic or dataset.size=[{width},{height}],"
            " the size that it is evaluated at"
        )


@export.check_network
def check_any_size(network: Any, config: Config, scratch: Path) -> None:
    """Raises UserError where export.size is dynamic and the network does not run at every size."""
    from segslim.deployment import export as exporting

    if export_size(config) is None:  # that of a fixed size is tried by the first evaluation
        exporting.check_any_size(network, scratch / "any-size.onnx", config.export.output)


def deploy_form(node: dict[str, Any]) -> dict[str, Any]:
    """{_target_: paddleseg.transforms.Resize, target_size: ...} -> {type: Resize, target_size: ...}."""
    options = {key: value for key, value in node.items() if not key.startswith("_")}
    return {"type": node["_target_"].rpartition(".")[2], **options}


def _paddle_int8(
    checkpoint: Checkpoint, spec: QuantizationSpec, float_file: Path, config: Config, folder: Path
) -> None:
    import onnx

    from segslim.deployment.export import input_shape
    from segslim.deployment.tracing import DeployedNetwork
    from segslim.quantization.qat import can_save_paddle_int8, save_paddle_int8

    if not can_save_paddle_int8():
        return

    def deployed(fake: Any) -> DeployedNetwork:
        return DeployedNetwork(fake, config.export.output)

    try:
        shape = input_shape(export_size(config))
        model = onnx.load(float_file)
        save_paddle_int8(checkpoint.network(), spec, model, deployed, folder, shape, dataclasses.asdict(Qat()))
    except Exception as error:  # whatever Paddle's passes raise: the deployment is whole without it
        shutil.rmtree(folder, ignore_errors=True)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        logger.warning("no int8 model in Paddle's format (only TensorRT in Paddle Inference reads it): %s", reason)


def to_int8(deployment: Path, table: QuantizationSpec) -> None:
    """Makes model.onnx int8, writes quantization.json {tensors, integer_nodes, floats: [{tensor, op_type, reason}]} of
    what became int8 and what did not, and drops the Paddle model: Paddle Inference would run it in float."""
    import onnx

    from segslim.quantization.qdq import quantize

    model = onnx.load(deployment / "model.onnx")
    quantized = quantize(model, table)
    onnx.save(model, deployment / "model.onnx")
    write_record(deployment, "quantization.json", quantized)
    for name in PADDLE_FILES:
        (deployment / name).unlink(missing_ok=True)
    write_precision(deployment, Precision("int8", table.compute))
    for left in quantized.floats:
        logger.info("%s (%s) stays float: %s", left.tensor, left.op_type, left.reason)
