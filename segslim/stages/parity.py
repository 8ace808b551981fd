"""parity: dataset, checkpoint, deployment, engine -> parity. Is the int8 file what the network before it was?"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Session, open_session
from segslim.deployment.engines.onnx_runtime import open_in_float
from segslim.errors import UserError
from segslim.evaluation.metrics import ConfusionMatrix, resize_nearest
from segslim.hardware import instruction_set, saturates
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import batches, evenly, usable_pairs
from segslim.stages.shared.sessions import class_ids, float_graph, open_selected, quality, threads

IMAGES = 50  # at most: both are judged on the same ones
LARGEST_LOSS, KERNELS_LOSS = 0.01, 0.002  # of mIoU, without a warning
NEEDS_INT8 = "compress.stages: parity compares an int8 file; put quantize before it, or leave it out"
logger = logging.getLogger(__name__)

Predict = Callable[[np.ndarray], np.ndarray]


@stage(
    does="comparing int8",
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
    """Gives {reference, images, miou_reference, miou_float, miou_deployed, miou_kernels, equal_pixels, suspects}.

    The reference is the fake-quantized network where it was trained, else the float one. `miou_float` is that of the
    deployed file computed in float, and `miou_kernels` that of each engine's integer kernels, by its name. What the
    file loses to the reference is the quantization's: beyond LARGEST_LOSS a warning names the layers of the least
    signal-to-noise ratio. What an engine loses to the file is its kernels': beyond KERNELS_LOSS a warning names these.
    """
    spec = checkpoint.quantization or QuantizationSpec(precision="float32")  # place may have found nothing better
    trained = bool(spec.fake_quantize) and not spec.rounded  # fake-quantize layers round to the nearest
    make = _fake_quantized if trained else _float
    predictors = {
        "reference": make(checkpoint, config, workspace.scratch),
        "deployed": _predict(open_selected(engine, deployment, config)),
        "float": _predict(open_in_float(deployment, threads(config))),
    }
    usable = {choice["candidate"]["engine"] for choice in engine["candidates"] if choice["excluded"] is None}
    for name in sorted(usable):
        predictors[f"kernels {name}"] = _predict(open_session(name, deployment, threads=threads(config)))
    miou, equal, images = _compare(predictors, dataset, config, workspace)
    kernels = {name: miou[f"kernels {name}"] for name in sorted(usable)}
    reference = "fake-quantized" if trained else "float"
    difference = miou["deployed"] - miou["reference"]
    words = f"{quality(config)} {difference:+.4f} from the {reference} network, {equal:.2%} equal pixels"
    workspace.summarize(f"{words}, {miou['deployed'] - miou['float']:+.4f} from the same file computed in float")
    _warn_of_kernels(quality(config), kernels, miou["float"], spec.target)
    if abs(miou["float"] - miou["reference"]) > LARGEST_LOSS:
        logger.warning("int8: %s; look at %s (compress.keep_float)", words, ", ".join(spec.noisiest_layers))
    return {
        "reference": reference,
        "images": images,
        **{f"miou_{name}": miou[name] for name in ("reference", "float", "deployed")},
        "miou_kernels": kernels,
        "equal_pixels": equal,
        "suspects": list(spec.noisiest_layers),
    }


def _warn_of_kernels(what: str, kernels: Mapping[str, float], in_float: float, target: str) -> None:
    here = instruction_set()
    remedy = "give export.target=any" if saturates(target, here) else "leave it out of engine.candidates"
    for name, miou in kernels.items():
        if abs(miou - in_float) > KERNELS_LOSS:
            logger.warning(
                "int8: %s %.4f by the kernels of %s on this processor (%s), %.4f where the same file, made for %s, is"
                " computed in float; %s",
                *(what, miou, name, here, in_float, target, remedy),
            )


@parity.check
def check_order(earlier: tuple[str, ...]) -> None:
    """Raises UserError when nothing is quantized that could be compared."""
    if "quantize" not in earlier:
        raise UserError(NEEDS_INT8)


def _compare(
    predictors: Mapping[str, Predict], dataset: Dataset, config: Config, workspace: Workspace
) -> tuple[dict[str, float], float, int]:
    """The mIoU of each; the share of pixels that "reference" and "deployed" give the same class; how many images."""
    pairs = usable_pairs(config, dataset, "val")
    chosen = [pairs[position] for position in evenly(len(pairs), IMAGES)]
    matrices = {name: ConfusionMatrix(config.dataset.num_classes, config.dataset.ignore_index) for name in predictors}
    equal = []
    for done, (image, labels) in enumerate(batches(config, chosen)):
        ids = {name: predict(image) for name, predict in predictors.items()}
        equal.append(float((ids["reference"] == ids["deployed"]).mean()))
        for name, matrix in matrices.items():
            matrix.update(resize_nearest(ids[name][0], *labels[0].shape), labels[0])
        workspace.progress("comparing", done + 1, len(chosen))
    return {name: matrix.metrics().miou for name, matrix in matrices.items()}, float(np.mean(equal)), len(chosen)


def _predict(session: Session) -> Predict:
    return lambda image: class_ids(session.run({session.input_names[0]: image})[0])


def _float(checkpoint: Checkpoint, config: Config, folder: Path) -> Predict:
    float_graph(checkpoint.network(), config, folder)
    return _predict(open_session("onnxruntime", folder / "float.onnx", threads=threads(config)))


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
