"""parity: dataset, checkpoint, deployment, engine -> parity. Is the int8 file what the network before it was?"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.deployment.engines import open_session
from segslim.evaluation.confusion import ConfusionMatrix
from segslim.evaluation.evaluate import resize_nearest
from segslim.networks.checkpoint import load_checkpoint
from segslim.paddle_compat import import_paddle
from segslim.pipeline.stage import Workspace
from segslim.quantization.table import Table
from segslim.records import PARITY, write_record
from segslim.stages.shared.graphs import float_graph
from segslim.stages.shared.pairs import evenly, usable_pairs
from segslim.stages.shared.quantized_training import Quantizing
from segslim.stages.shared.sessions import open_selected, threads
from segslim.stages.shared.validation import batches, class_ids

IMAGES = 50  # at most: both are judged on the same ones
LARGEST_LOSS = 0.01  # of mIoU, without a warning
logger = logging.getLogger(__name__)

Predict = Callable[[np.ndarray], np.ndarray]


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes parity.json {reference, images, miou_reference, miou_deployed, equal_pixels, suspects}.

    The reference is the fake-quantized network where it was trained, else the float one. Warns where the deployed file
    is more than LARGEST_LOSS of mIoU from it, with the layers of the least signal-to-noise ratio.
    """
    table = Table.load(inputs["checkpoint"])
    assert table is not None  # check_parity saw to it
    trained = bool(table.training)
    make = _fake_quantized if trained else _float
    predict = make(inputs["checkpoint"], table, config, workspace.scratch)
    session = open_selected(inputs["engine"], inputs["deployment"], config)
    name = session.input_names[0]
    found = _compare(predict, lambda image: class_ids(session.run({name: image})[0]), inputs, config, workspace)
    record = {"reference": "fake-quantized" if trained else "float", **found, "suspects": list(table.suspects)}
    write_record(workspace.artifact, PARITY, record)
    difference = found["miou_deployed"] - found["miou_reference"]
    words = f"mIoU {difference:+.4f} from the {record['reference']} network, {found['equal_pixels']:.2%} equal pixels"
    if abs(difference) > LARGEST_LOSS:
        logger.warning("int8: %s; look at %s (compress.keep_float)", words, ", ".join(table.suspects))
    return words


def _compare(
    reference: Predict, deployed: Predict, inputs: Mapping[str, Path], config: Config, workspace: Workspace
) -> dict[str, Any]:
    pairs = usable_pairs(config, inputs["dataset"], "val")
    chosen = [pairs[position] for position in evenly(len(pairs), IMAGES)]
    before, after = (ConfusionMatrix(config.dataset.num_classes, config.dataset.ignore_index) for _ in range(2))
    equal = []
    for done, (image, labels) in enumerate(batches(config, chosen)):
        ids = reference(image), deployed(image)
        equal.append(float((ids[0] == ids[1]).mean()))
        for matrix, predicted in zip((before, after), ids, strict=True):
            matrix.update(resize_nearest(predicted[0], *labels[0].shape), labels[0])
        workspace.progress("comparing", done + 1, len(chosen))
    scores = {"miou_reference": before.scores().miou, "miou_deployed": after.scores().miou}
    return {"images": len(chosen), **scores, "equal_pixels": float(np.mean(equal))}


def _float(checkpoint: Path, table: Table, config: Config, folder: Path) -> Predict:
    float_graph(load_checkpoint(checkpoint).network, config, folder)
    session = open_session("onnxruntime", folder / "float.onnx", threads=threads(config))
    return lambda image: class_ids(session.run({session.input_names[0]: image})[0])


def _fake_quantized(checkpoint: Path, table: Table, config: Config, folder: Path) -> Predict:
    """The simulation in Paddle, which has no faster form."""
    paddle = import_paddle()
    network = Quantizing.of(checkpoint, table, config, folder).network
    network.eval()

    def predict(image: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return np.asarray(network(paddle.to_tensor(image))[0].numpy().argmax(axis=1))

    return predict
