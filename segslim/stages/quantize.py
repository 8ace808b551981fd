"""quantize: dataset, checkpoint -> checkpoint with the ranges of its activations, measured on training images.
set_precision: checkpoint -> checkpoint that engines compute in another float type; no weight is touched.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from segslim.config import Config, Qat
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment, Precision
from segslim.deployment.engines import available, computes_in, open_session, runs_int8
from segslim.errors import UserError
from segslim.hardware import machine_identity
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import require_code, tensor_names
from segslim.pipeline.stage import Workspace, stage
from segslim.quantization.spec import SATURATING, QuantizationSpec
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import Batches, batches, evenly, usable_pairs
from segslim.stages.shared.sessions import float_graph, ranked_engines, score, threads

if TYPE_CHECKING:
    import onnx

SUSPECTS = 3
logger = logging.getLogger(__name__)


@stage(
    does="quantizing",
    gives=Checkpoint,
    reads=[
        *("dataset.size", "dataset.val_transforms", "export.size", "export.output", "export.target"),
        *("compress.calibration", "compress.activations", "compress.precisions"),
        *("compress.keep_float", "compress.miou_loss", "compress.qat"),
        *("dataset.num_classes", "dataset.ignore_index", "seed"),
    ],
    ignores=["dataset.source", "dataset.on_error", "engine.threads", "engine.candidates", "engine.precision"],
    packages=(*PADDLE, "paddle2onnx", "onnx", "onnxruntime", "numpy"),
    version=5,
)
def quantize(dataset: Dataset, checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Checkpoint:
    """Gives the checkpoint with the ranges by which export inserts int8; its weights stay float.

    It tells of each layer the signal-to-quantization-noise ratio in decibels, the worst first (`layers`), and with
    keep_float=auto the mIoU with each of the worst alone left float (`floats`).
    """
    from segslim.quantization.calibration import activation_ranges, collect_statistics
    from segslim.quantization.equalization import equalize
    from segslim.quantization.graph import set_initializer
    from segslim.quantization.mixed_precision import signal_to_noise
    from segslim.quantization.qat import layer_names, match_layers

    compress = config.compress
    given = compress.calibration
    assert given is not None  # or check_quantization would have refused
    network = checkpoint.network()
    model = float_graph(network, config, workspace.scratch)
    labelled = calibration_images(config, dataset, given.images)
    images = [image for image, _ in labelled]

    def progress(done: int, total: int) -> None:
        workspace.progress("calibrating", done, total)

    if given.equalize:
        equalized = equalize(model, images, threads(config))
        for name, array in equalized.items():
            set_initializer(model.graph, name, array)
        tensors = tensor_names(network)
        weights = {name: equalized.get(tensors[name], old) for name, old in checkpoint.weights.items()}
        checkpoint = checkpoint.with_weights(weights)
    target = config.export.target
    statistics = collect_statistics(model, images, threads(config), progress=progress)
    found = activation_ranges(statistics, given.observer, given.percentile)
    names = layer_names(network)
    by_weight = signal_to_noise(model, statistics, found, target)
    ratios = {names.get(weight, weight): ratio for weight, ratio in by_weight.items()}
    spec = QuantizationSpec(
        found,
        noisiest_layers=tuple(ratios)[:SUSPECTS],
        target=target,
        activation_type=compress.activations,
        keep_float=() if compress.keep_float == "auto" else match_layers(network, compress.keep_float),
        fake_quantize=_trained_for(target, compress.qat) if compress.qat else {},
        compute=tuple(compress.precisions or ()),
        origin=f"{given.observer} over {len(images)} training images",
    )
    spec = _with_rounded(spec, model, images, config, workspace)
    measured: dict[str, Any] = {"layers": ratios}
    if compress.keep_float == "auto":
        spec, measured["floats"] = _with_floats(spec, model, dict(by_weight), labelled, config, workspace)
    workspace.summarize(f"{len(spec.ranges)} tensors, {spec.origin}")
    return checkpoint.quantized(spec, **measured)


def _trained_for(target: str, options: Qat) -> dict[str, Any]:
    """Options of fake-quantize layers that round weights as coarsely as the target demands: to 7 bits or 8."""
    bits = min(options.weight_bits, 7 if target in SATURATING else 8)
    return {**dataclasses.asdict(options), "weight_bits": bits}


def _with_rounded(
    spec: QuantizationSpec, model: "onnx.ModelProto", images: list[np.ndarray], config: Config, workspace: Workspace
) -> QuantizationSpec:
    """With weights and biases as compress.calibration says."""
    from segslim.quantization.rounding import round_weights

    given = config.compress.calibration
    if given is None or (given.rounding == "nearest" and not given.bias_correction):
        return spec
    with threadpool_limits(limits=1):  # of numpy's: another number sums in another order
        rounded = round_weights(
            model,
            spec,
            images,
            gram=given.rounding == "gram",
            bias=given.bias_correction,
            seed=config.seed,
            threads=threads(config),
            progress=lambda done, total: workspace.progress("rounding", done, total),
        )
    return dataclasses.replace(spec, rounded=rounded)


def _with_floats(
    spec: QuantizationSpec,
    model: "onnx.ModelProto",
    ratios: Mapping[str, float],
    labelled: Batches,
    config: Config,
    workspace: Workspace,
) -> tuple[QuantizationSpec, dict[str, float]]:
    """With the layers that keep_float=auto chooses, and {weight: mIoU with it alone float}."""
    from segslim.deployment.cost import flops_by_weight
    from segslim.quantization.mixed_precision import choose_float_layers

    def tell(done: int, total: int) -> None:
        workspace.progress("one layer float at a time", done, total)

    loss = config.compress.miou_loss
    assert loss is not None  # or check_quantization would have refused
    costs = flops_by_weight(workspace.scratch / "float.onnx", config.dataset.size)
    miou = _miou_by_layers(model, spec, labelled, config, workspace.scratch)
    kept, alone = choose_float_layers(ratios, costs, miou, loss, tell)
    return dataclasses.replace(spec, keep_float=kept), alone


def calibration_images(config: Config, dataset: Dataset, wanted: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """`wanted` training images with their labels, spread evenly over the list; all where there are fewer."""
    from segslim.quantization.calibration import check_image_count

    pairs = usable_pairs(config, dataset, "train")
    check_image_count(len(pairs))
    if len(pairs) < wanted:
        logger.warning("calibration: all %d training images are used; %d were asked for", len(pairs), wanted)
    chosen = [pairs[position] for position in evenly(len(pairs), wanted)]
    return list(batches(config, chosen))


def _miou_by_layers(
    model: "onnx.ModelProto", spec: QuantizationSpec, images: Batches, config: Config, folder: Path
) -> Any:
    """mIoU on labelled `images` with these layers left float, the rest int8; of the float graph for None. In the engine
    that is fastest with all layers int8.
    """
    import onnx

    from segslim.onnx_tools import copied
    from segslim.quantization import qdq

    def written(kept: Sequence[str] | None) -> Deployment:
        copy = copied(model)
        if kept is not None:
            qdq.quantize(copy, dataclasses.replace(spec, keep_float=tuple(kept)))
        onnx.save(copy, folder / "judged.onnx")
        deployment = Deployment.from_onnx(folder / "judged.onnx")
        return dataclasses.replace(deployment, precision=Precision("int8", spec.compute, spec.target))  # type: ignore[arg-type]

    best = ranked_engines(written(()), next(iter(images))[0], config)[0].candidate

    def miou(kept: Sequence[str] | None) -> float:
        session = open_session(best.engine, written(kept), threads=threads(config), precision=best.precision)
        return score(session, config, images).miou

    return miou


@quantize.depends
def judging_engines(config: Config) -> dict[str, Any]:
    """What keep_float=auto is judged in."""
    if config.compress.keep_float != "auto":
        return {}
    return {"candidates": config.engine.candidates, "precision": config.engine.precision, "on": machine_identity()}


@quantize.check
def check_quantization(config: Config) -> None:
    """Raises UserError when a key that quantization needs is missing or has no meaning."""
    from segslim.quantization.calibration import OBSERVERS

    compress = config.compress
    if compress.calibration is None:
        raise UserError(
            f"compress.calibration has no value: strategy '{compress.name}' quantizes; conf/compress/ptq.yaml has it"
        )
    if compress.qat is not None:
        require_code(config.model.network, "quantization-aware training trains it; give compress=ptq")
    if compress.keep_float == "auto" and compress.miou_loss is None:
        raise UserError(
            "compress.miou_loss has no value: compress.keep_float=auto needs it; give compress.miou_loss=0.005"
        )
    if compress.calibration.observer not in OBSERVERS:
        raise UserError(
            f"compress.calibration.observer={compress.calibration.observer}: should be one of {', '.join(OBSERVERS)}"
        )
    installed = available(config.engine.candidates)
    if not any(map(runs_int8, installed)):
        raise UserError(
            f"engine: none of {', '.join(installed)} computes in int8 on this machine, which strategy '{compress.name}'"
            " is for; give engine=auto, or compress=none"
        )
    if compress.precisions is not None:
        _check_one_can(config, compress.precisions)


@quantize.check_network
def check_layers(network: Any, config: Config, images: int) -> None:
    """Raises UserError where no layer fits compress.keep_float or compress.qat, or the images are too few."""
    from segslim.quantization.calibration import check_image_count
    from segslim.quantization.qat import check_layer_types, match_layers

    compress = config.compress
    if compress.keep_float != "auto":
        match_layers(network, compress.keep_float)
    if compress.qat is not None:
        check_layer_types(network, compress.qat.quantizable_layer_type)
    check_image_count(images)


@stage(does="setting precision", gives=Checkpoint, reads=["compress.precisions"])
def set_precision(checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Checkpoint:
    """Gives the checkpoint whose deployment names the float types that engines may compute in."""
    compute = tuple(config.compress.precisions or ())
    workspace.summarize(", ".join(compute))
    return checkpoint.quantized(
        dataclasses.replace(checkpoint.quantization or QuantizationSpec(precision="float32"), compute=compute)
    )


@set_precision.check
def check_precisions(config: Config) -> None:
    """Raises UserError when a strategy that only changes the precision names none."""
    if config.compress.precisions is None:
        raise UserError("compress.precisions has no value: give compress.precisions=[bfloat16]")
    _check_one_can(config, config.compress.precisions)


def _check_one_can(config: Config, precisions: Sequence[str]) -> None:
    """Raises UserError when no engine that the config admits computes in any of `precisions` on this machine."""
    can = {name: computes_in(name) for name in available(config.engine.candidates)}
    if not any(set(precisions) & set(known) for known in can.values()):
        having = "; ".join(f"{name} {', '.join(known)}" for name, known in can.items())
        raise UserError(f"compress.precisions={list(precisions)}: no engine has it on this machine; there is {having}")
