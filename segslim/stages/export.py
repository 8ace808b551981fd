"""export: checkpoint -> deployment. Paddle inference model, deploy.yaml and ONNX, checked; and what the file costs.

The ONNX file of a checkpoint that is quantized is int8, and the only model that is deployed.
"""

from pathlib import Path
from typing import Any, Literal

from segslim.colours import palette
from segslim.config import Config
from segslim.deployment.deployment import Deployment
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import NAMES, PADDLE
from segslim.stages.shared.sessions import export_size


@stage(
    does="exporting",
    gives=Deployment,
    reads=[
        *("export.size", "export.output", "export.tolerance", "export.formats", "export.fp16", "export.opset"),
        "export.preprocess",
        *("dataset.size", "dataset.num_classes", "dataset.val_transforms", *NAMES),
        *("dataset.channels", "dataset.max_value"),
    ],
    packages=(*PADDLE, "paddle2onnx", "onnx", "openvino", "MNN", "pnnx"),
    version=3,
)
def export(checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Deployment:
    """Gives the deployment, compared with the checkpoint's network, and its cost, counted on the ONNX file."""
    from segslim.deployment import export as exporting

    spec = checkpoint.quantization
    deployment = exporting.export(
        checkpoint.network(),
        workspace.artifact,
        size=export_size(config),
        channels=config.dataset.channels,
        max_value=config.dataset.max_value,
        output=config.export.output,
        transforms=[deploy_form(node) for node in config.dataset.val_transforms],
        tolerance=config.export.tolerance,
        classes=config.dataset.classes,
        colours=palette(config.dataset.num_classes, config.dataset.colours),
        quantization=spec if spec is not None and spec.is_int8 else None,
        compute=spec.compute if spec is not None else (),
        cost_size=config.dataset.size,
        formats=config.export.formats,
        fp16=config.export.fp16,
        opset=config.export.opset,
        photo=photo_order(config),
    )
    megabytes, difference = deployment.cost.size_bytes / 1e6, deployment.report.difference
    workspace.summarize(
        f"{megabytes:.2f} MB, its output and the network's differ by at most {difference:.1e} of the largest logit"
    )
    return deployment


@export.check
def check_formats(config: Config) -> None:
    """Raises UserError for a format that cannot be written here, and for an engine whose format is not."""
    from segslim.deployment import formats

    wanted = config.export.formats
    if "onnx" not in wanted:
        raise UserError(f"export.formats={wanted}: should have onnx, which the other formats are made of")
    formats.check_formats(wanted, export_size(config) is None)
    for name in config.engine.candidates:
        if name in ("mnn", "ncnn") and name not in wanted:
            raise UserError(
                f"engine.candidates={name}: reads a file of its own; give export.formats=[paddle,onnx,{name}]"
            )


@export.check
def check_preprocess(config: Config) -> None:
    """Raises UserError where photos cannot be transformed in the graph."""
    order = photo_order(config)
    if order is None:
        return
    from segslim.deployment.photo import check_transforms

    check_transforms([deploy_form(node) for node in config.dataset.val_transforms])
    if order == "bgr" and config.dataset.channels != 3:
        raise UserError(
            f"export.preprocess=bgr: dataset.channels={config.dataset.channels} have no such order; give true"
        )


def photo_order(config: Config) -> Literal["rgb", "bgr"] | None:
    """Of the photos that photo.onnx takes (export.preprocess); None where it is not wanted."""
    wanted = config.export.preprocess
    return ("rgb" if wanted else None) if isinstance(wanted, bool) else wanted


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
        exporting.check_any_size(network, scratch / "any-size.onnx", config.export.output, config.dataset.channels)


def deploy_form(node: dict[str, Any]) -> dict[str, Any]:
    """{_target_: paddleseg.transforms.Resize, target_size: ...} -> {type: Resize, target_size: ...}."""
    options = {key: value for key, value in node.items() if not key.startswith("_")}
    return {"type": node["_target_"].rpartition(".")[2], **options}
