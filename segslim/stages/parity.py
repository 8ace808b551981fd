"""parity: dataset, checkpoint, deployment, engine -> parity. Is the int8 file what the network before it was?"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import open_session
from segslim.errors import UserError
from segslim.evaluation.metrics import ConfusionMatrix, resize_nearest
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import batches, evenly, usable_pairs
from segslim.stages.shared.sessions import class_ids, float_graph, open_selected, quality, threads

IMAGES = 50  # at most: both are judged on the same ones
LARGEST_LOSS = 0.01  # of mIoU, without a warning
NEEDS_INT8 = "compress.stages: parity compares an int8 file; put quantize before it, or leave it out"
logger = logging.getLogger(__name__)

Predict = Callable[[np.ndarray], np.ndarray]


@stage(
    gives="parity",
    reads=[
        *("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index"),
        *("export.size", "export.output"),
    ],
    ignores=["dataset.source", "dataset.on_error", "dataset.labelled", "engine.threads"],
    packages=PADDLE,
)
def parity(
    dataset: Dataset,
    checkpoint: Checkpoint,
    deployment: Deployment,
    engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
) -> dict[str, Any]:
    """Gives {reference, images, miou_reference, miou_deployed, equal_pixels, suspects}.

    The reference is the fake-quantized network where it was trained, else the float one. Warns where the deployed file
    is more than LARGEST_LOSS of mIoU from it, with the layers of the least signal-to-noise ratio.
    """
    spec = checkpoint.quantization
    if spec is None or not spec.is_int8:
        raise UserError(NEEDS_INT8)
    make = _fake_quantized if spec.fake_quantize else _float
    predict = make(checkpoint, config, workspace.scratch)
    session = open_selected(engine, deployment, config)
    name = session.input_names[0]
    found = _compare(predict, lambda image: class_ids(session.run({name: image})[0]), dataset, config, workspace)
    record = {
        "reference": "fake-quantized" if spec.fake_quantize else "float",
        **found,
        "suspects": list(spec.noisiest_layers),
    }
    difference = found["miou_deployed"] - found["miou_reference"]
    equal = f"{found['equal_pixels']:.2%} equal pixels"
    words = f"{quality(config)} {difference:+.4f} from the {record['reference']} network, {equal}"
    if abs(difference) > LARGEST_LOSS:
        logger.warning("int8: %s; look at %s (compress.keep_float)", words, ", ".join(spec.noisiest_layers))
    workspace.summarize(words)
    return record


@parity.check
def check_order(earlier: tuple[str, ...]) -> None:
    """Raises UserError when nothing is quantized that could be compared."""
    if "quantize" not in earlier:
        raise UserError(NEEDS_INT8)


def _compare(
    reference: Predict, deployed: Predict, dataset: Dataset, config: Config, workspace: Workspace
) -> dict[str, Any]:
    pairs = usable_pairs(config, dataset, "val")
    chosen = [pairs[position] for position in evenly(len(pairs), IMAGES)]
    before, after = (ConfusionMatrix(config.dataset.num_classes, config.dataset.ignore_index) for _ in range(2))
    equal = []
    for done, (image, labels) in enumerate(batches(config, chosen)):
        ids = reference(image), deployed(image)
        equal.append(float((ids[0] == ids[1]).mean()))
        for matrix, predicted in zip((before, after), ids, strict=True):
            matrix.update(resize_nearest(predicted[0], *labels[0].shape), labels[0])
        workspace.progress("comparing", done + 1, len(chosen))
    scores = {"miou_reference": before.metrics().miou, "miou_deployed": after.metrics().miou}
    return {"images": len(chosen), **scores, "equal_pixels": float(np.mean(equal))}


def _float(checkpoint: Checkpoint, config: Config, folder: Path) -> Predict:
    float_graph(checkpoint.network(), config, folder)
    session = open_session("onnxruntime", folder / "float.onnx", threads=threads(config))
    return lambda image: class_ids(session.run({session.input_names[0]: image})[0])


def _fake_quantized(checkpoint: Checkpoint, config: Config, folder: Path) -> Predict:
    """The simulation in Paddle, which has no faster form."""
    from segslim.paddle_compat import import_paddle
    from segslim.stages.shared.training_process import QuantizedNetwork

    paddle = import_paddle()
    network = QuantizedNetwork.from_checkpoint(checkpoint, config, folder).network
    network.eval()

    def predict(image: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return np.asarray(network(paddle.to_tensor(image))[0].numpy().argmax(axis=1))

    return predict
