"""evaluate: dataset, deployment, engine -> metrics. On the deployed file, in the engine that was selected for it."""

import dataclasses
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import OWN_FILES
from segslim.errors import UserError
from segslim.evaluation.metrics import ConfusionMatrix, class_counts
from segslim.evaluation.windows import Augmented, RocCurve, logits_over
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared.images import batches, transforms, usable_pairs
from segslim.stages.shared.sessions import open_selected, quality
from segslim.stages.shared.sessions import score as score_session

IMAGES = "images.npz"
ONNX_ENGINE = {"engine": "onnxruntime", "precision": "float32"}


@stage(
    does="evaluating",
    gives="metrics",
    reads=[
        *("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index", "dataset.labelled"),
        *("dataset.size", "evaluation"),
    ],
    ignores=["dataset.source", "dataset.on_error", "engine.threads"],
    version=4,
)
def evaluate(
    dataset: Dataset, deployment: Deployment, engine: dict[str, Any], config: Config, workspace: Workspace
) -> dict[str, Any]:
    """Gives {miou, class_iou, accuracy, kappa, dice} over all validation images; without labels {agreement: {miou,
    class_iou, equal_pixels}}, against the dense network's predictions.

    Where the section `evaluation` asks for it, {augmented: {miou, ...}} is of windows, scales and flips, and {auc_roc}
    of the plain way. Beside it, IMAGES holds `counts`, the `class_counts` of each image, N,3,C: what an interval of the
    mIoU is made of; and `confusion`, the pixels of all images by label and prediction, C,C.
    """
    pairs = usable_pairs(config, dataset, "val")
    images: list[np.ndarray] = []
    whole = np.zeros((config.dataset.num_classes,) * 2, np.int64)

    def count(confusion: np.ndarray) -> None:
        images.append(class_counts(confusion))
        whole[:] += confusion

    metrics = score_session(
        open_selected(engine, deployment, config),
        config,
        batches(config, pairs),
        lambda done: workspace.progress("evaluating", done, len(pairs)),
        count,
    )
    beside = _beside(dataset, deployment, engine, config, workspace)
    np.savez_compressed(workspace.artifact / IMAGES, counts=np.stack(images), confusion=whole)
    if config.dataset.labelled:
        parts = [f"mIoU {metrics.miou:.4f} on {len(pairs)} images"]
        parts += [f"{beside['augmented']['miou']:.4f} augmented"] if "augmented" in beside else []
        parts += [f"AUC {beside['auc_roc']:.4f}"] if beside.get("auc_roc") is not None else []
        workspace.summarize(", ".join(parts))
        return {**dataclasses.asdict(metrics), **beside}
    equal = metrics.accuracy  # what is right is what the dense network predicts
    workspace.summarize(f"{equal:.2%} of the pixels equal to the dense network's, {quality(config)} {metrics.miou:.4f}")
    return {"agreement": {"miou": metrics.miou, "class_iou": metrics.class_iou, "equal_pixels": equal}}


def _beside(
    dataset: Dataset, deployment: Deployment, engine: dict[str, Any], config: Config, workspace: Workspace
) -> dict[str, Any]:
    """{augmented: metrics} and {auc_roc} of the deployed network's logits, in its engine, where they are asked for."""
    asked = config.evaluation
    if not (asked.is_augmented or asked.auc_roc) or not config.dataset.labelled:
        return {}
    from segslim.onnx_graph import write_logits_model

    file = workspace.scratch / "logits.onnx"
    write_logits_model(deployment.onnx_file, file)
    session = open_selected(engine if engine["engine"] not in OWN_FILES else ONNX_ENGINE, file, config)
    name, ignored = session.input_names[0], config.dataset.ignore_index
    pairs = usable_pairs(config, dataset, "val")

    def run(image: np.ndarray) -> np.ndarray:
        return session.run({name: image})[0]

    beside: dict[str, Any] = {}
    if asked.auc_roc:
        curve = RocCurve(config.dataset.num_classes)
        for image, (label,) in batches(config, pairs):
            curve.update(logits_over(run(image), label), label, ignored)
        beside["auc_roc"] = curve.area()
    if asked.is_augmented:
        fixed = deployment.input_size
        way = Augmented(asked.crop_size or fixed, asked.stride, asked.scales, asked.flips, fixed is not None)
        confusion = ConfusionMatrix(config.dataset.num_classes, ignored)
        unresized = _without_resize(transforms(config, "val"), config) if asked.crop_size else None
        for done, (image, (label,)) in enumerate(batches(config, pairs, unresized), start=1):
            confusion.update(logits_over(way.logits(run, image), label).argmax(1)[0], label)
            workspace.progress("evaluating, augmented", done, len(pairs))
        beside["augmented"] = dataclasses.asdict(confusion.metrics())
    return beside


def _without_resize(made: list[Any], config: Config) -> list[Any]:
    """The transforms but the last one that brings every image to dataset.size: windows slide over what it shrinks."""
    sized = [each for each in made if list(getattr(each, "target_size", ())) == list(config.dataset.size)]
    return [each for each in made if each is not (sized or [None])[-1]]


@evaluate.check
def check_windows(config: Config) -> None:
    """Raises UserError where windows are not what the deployed network takes."""
    asked = config.evaluation
    try:
        Augmented(asked.crop_size, asked.stride)
    except UserError as error:  # which starts with the name of what is wrong
        raise UserError(f"evaluation.{error}") from None
    if asked.crop_size is not None and config.export.size != "dynamic" and asked.crop_size != config.dataset.size:
        width, height = asked.crop_size
        raise UserError(
            f"evaluation.crop_size=[{width},{height}]: the network takes images of dataset.size="
            f"{list(config.dataset.size)}; give dataset.size=[{width},{height}], or export.size=dynamic"
        )
