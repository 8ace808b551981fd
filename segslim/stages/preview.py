"""preview: dataset, both deployments and engines -> pictures. A few validation images as both networks see them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segslim.colours import palette
from segslim.config import Config
from segslim.data import Pair
from segslim.data.images import as_rgb
from segslim.data.source import Dataset
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Session
from segslim.evaluation import resize_nearest
from segslim.pipeline.stage import Workspace, stage
from segslim.reporting.images import difference, draw, errors
from segslim.stages.shared.images import batches, evenly, usable_pairs
from segslim.stages.shared.sessions import class_ids, open_both

LOOKED_AT = 40  # images, spread evenly over the validation list, among which those are looked for that differ most
EVENLY, MOST = 2, 3  # images shown: the same ones in every run on a data set, and those that differ most
SIDE = 360  # pixels of a picture's longer side


@stage(
    does="drawing examples",
    gives="pictures",
    reads=[
        *("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index", "dataset.colours"),
        "dataset.labelled",
    ],
    ignores=["dataset.source", "dataset.on_error", "engine.threads"],
)
def preview(
    dataset: Dataset,
    baseline_deployment: Deployment,
    baseline_engine: dict[str, Any],
    deployment: Deployment,
    engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
) -> dict[str, Any]:
    """Gives {looked_at, of, images: [{name, chosen, changed, accuracy, files}]} and writes the files.

    `chosen` is "evenly" or "most", `changed` the share of the network's pixels whose class the two do not agree on
    (of a network alone: that are wrong), `accuracy` the share of the labelled pixels that are right, of each network.
    Without labels the dense network's predictions stand for them, and there is no picture of them.
    """
    sessions = open_both((baseline_engine, baseline_deployment), (engine, deployment), config)
    listed = usable_pairs(config, dataset, "val")
    pairs = [listed[i] for i in evenly(len(listed), LOOKED_AT)]
    changed = []
    for done, (image, labels) in enumerate(batches(config, pairs), start=1):
        changed.append(_changed([_predict(session, image) for session in sessions.values()], labels[0], config))
        workspace.progress("looking for differences", done, len(pairs))
    chosen = _choose(changed)
    chosen_batches = batches(config, [pairs[i] for i in chosen])
    images = []
    for number, (at, (image, labels)) in enumerate(zip(chosen, chosen_batches, strict=True)):
        masks = {role: resize_nearest(_predict(s, image), *labels[0].shape) for role, s in sessions.items()}
        files = _draw(pairs[at], labels[0], masks, config, workspace.artifact, number)
        accuracy = {role: _accuracy(ids, labels[0], config.dataset.ignore_index) for role, ids in masks.items()}
        named = {"name": pairs[at].image.name, "chosen": chosen[at], "changed": changed[at]}
        images.append({**named, "accuracy": accuracy, "files": files})
    differs = len(sessions) > 1 or not config.dataset.labelled
    what = "pixels change their class" if differs else "pixels are wrong"
    workspace.summarize(f"{np.mean(changed):.1%} of the {what}")
    return {"looked_at": len(pairs), "of": len(listed), "images": images}


def _predict(session: Session, image: np.ndarray) -> np.ndarray:
    return class_ids(session.run({session.input_names[0]: image})[0])[0]


def _changed(predictions: list[np.ndarray], label: np.ndarray, config: Config) -> float:
    if len(predictions) == 1:
        return 1 - (_accuracy(resize_nearest(predictions[0], *label.shape), label, config.dataset.ignore_index) or 0.0)
    return float((predictions[0] != predictions[1]).mean())


def _choose(changed: list[float]) -> dict[int, str]:
    """Positions to show, and why."""
    spread = evenly(len(changed), EVENLY)
    others = sorted(set(range(len(changed))) - set(spread), key=lambda at: -changed[at])
    return {**dict.fromkeys(spread, "evenly"), **dict.fromkeys(others[:MOST], "most")}


def _accuracy(ids: np.ndarray, label: np.ndarray, ignore_index: int) -> float | None:
    counted = label != ignore_index
    return float((ids == label)[counted].mean()) if counted.any() else None


def _draw(
    pair: Pair, label: np.ndarray, masks: Mapping[str, np.ndarray], config: Config, folder: Path, number: int
) -> dict[str, str]:
    """Writes the picture of each kind, and returns its file name by kind."""
    dataset = config.dataset
    image = Image.fromarray(as_rgb(pair.read_image()))
    scale = min(1.0, SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BOX)
    small = {kind: resize_nearest(ids, height, width) for kind, ids in {"label": label, **masks}.items()}
    if "baseline" in small:
        kinds = difference(small["baseline"], small["compressed"], small["label"], dataset.ignore_index)
    else:
        kinds = errors(small["compressed"], small["label"], dataset.ignore_index)
    colours = palette(dataset.num_classes, dataset.colours)
    shown = small if dataset.labelled else masks.keys()
    pictures = {kind: _mask(small[kind], colours) for kind in shown}
    pictures |= {"image": image, "difference": Image.fromarray(draw(np.asarray(image), kinds))}
    return {kind: _save(picture, folder, f"{number}-{kind}") for kind, picture in pictures.items()}


def _mask(ids: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    """A picture of class ids with a palette; ids without a colour, such as the ignored ones, are black."""
    mask = Image.fromarray(ids.astype(np.uint8), mode="P")
    mask.putpalette([level for colour in colours for level in colour] + [0] * (3 * (256 - len(colours))))
    return mask


def _save(picture: Any, folder: Path, name: str) -> str:
    """A mask as PNG, where it is smallest and exact; a photograph as JPEG."""
    file = f"{name}.png" if picture.mode == "P" else f"{name}.jpg"
    options = {"optimize": True} if picture.mode == "P" else {"quality": 88, "subsampling": 0}
    picture.save(folder / file, **options)
    return file
