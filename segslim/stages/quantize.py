"""quantize: dataset, checkpoint -> checkpoint with the ranges of its activations, measured on training images."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from segslim.config import Config
from segslim.deployment.cost import flops_by_weight
from segslim.deployment.engines import open_session
from segslim.networks.checkpoint import copy_checkpoint, load_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.quantization.calibrate import check_count, ranges, watch
from segslim.quantization.keep_float import Miou, choose
from segslim.quantization.layers import signal_to_noise
from segslim.quantization.qat import layer_names, matching
from segslim.quantization.qdq import quantize
from segslim.quantization.table import Table
from segslim.records import write_record
from segslim.stages.shared.graphs import float_graph
from segslim.stages.shared.pairs import evenly, usable_pairs
from segslim.stages.shared.sessions import threads
from segslim.stages.shared.validation import Batches, batches, score

SUSPECTS = 3
logger = logging.getLogger(__name__)


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint with quantization.yaml beside its float weights, by which export inserts int8, and
    layers.json {layer: signal-to-quantization-noise ratio in decibels}, the worst first."""
    given = config.compress.calibration
    assert given is not None  # check_quantization saw to it
    network = load_checkpoint(inputs["checkpoint"]).network
    model = float_graph(network, config, workspace.scratch)
    labelled = calibration_images(config, inputs["dataset"], given.images)
    images = [image for image, _ in labelled]

    def progress(done: int, total: int) -> None:
        workspace.progress("calibrating", done, total)

    seen = watch(model, images, threads(config), progress=progress)
    found = ranges(seen, given.observer, given.percentile)
    names = layer_names(network)
    by_weight = signal_to_noise(model, seen, found)
    ratios = {names.get(weight, weight): ratio for weight, ratio in by_weight.items()}
    write_record(workspace.artifact, "layers.json", ratios)
    table = Table(
        found,
        suspects=tuple(ratios)[:SUSPECTS],
        form=config.compress.activations,
        keep_float=() if config.compress.keep_float == "auto" else matching(network, config.compress.keep_float),
        training=dataclasses.asdict(config.compress.qat) if config.compress.qat else {},
        compute=tuple(config.compress.precisions or ()),
        origin=f"{given.observer} over {len(images)} training images",
    )
    if config.compress.keep_float == "auto":
        table = _with_floats(table, model, dict(by_weight), labelled, config, workspace)
    copy_checkpoint(inputs["checkpoint"], workspace.artifact)
    table.save(workspace.artifact)
    return f"{len(table.ranges)} tensors, {table.origin}"


def _with_floats(
    table: Table,
    model: onnx.ModelProto,
    ratios: Mapping[str, float],
    labelled: Batches,
    config: Config,
    workspace: Workspace,
) -> Table:
    """The table with the layers that keep_float=auto chooses; writes floats.json {weight: mIoU with it alone float}."""
    miou = _miou_by_layers(model, table, labelled, config, workspace.scratch)

    def tell(done: int, total: int) -> None:
        workspace.progress("one layer float at a time", done, total)

    costs = flops_by_weight(workspace.scratch / "float.onnx", config.dataset.size)
    kept, alone = choose(ratios, costs, miou, config.compress.miou_loss, tell)
    write_record(workspace.artifact, "floats.json", alone)
    return dataclasses.replace(table, keep_float=kept)


def calibration_images(config: Config, dataset: Path, wanted: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """`wanted` training images with their labels, spread evenly over the list; all where there are fewer."""
    pairs = usable_pairs(config, dataset, "train")
    check_count(len(pairs))
    if len(pairs) < wanted:
        logger.warning("calibration: all %d training images are used; %d were asked for", len(pairs), wanted)
    chosen = [pairs[position] for position in evenly(len(pairs), wanted)]
    return list(batches(config, chosen))


def _miou_by_layers(model: onnx.ModelProto, table: Table, images: Batches, config: Config, folder: Path) -> Miou:
    """mIoU on labelled `images` with these layers left float, the rest int8; of the float graph for None."""

    def miou(kept: Sequence[str] | None) -> float:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        if kept is not None:
            quantize(copy, dataclasses.replace(table, keep_float=tuple(kept)))
        onnx.save(copy, folder / "judged.onnx")
        session = open_session("onnxruntime", folder / "judged.onnx", threads=threads(config))
        return score(session, config, images).miou

    return miou
