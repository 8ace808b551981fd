"""An image to class ids: transforms, engine, and the way back to the image's own size."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.data.images import Reading, read_image
from segslim.deployment.deployment import Deployment, one_line
from segslim.deployment.engines import OWN_FILES, Session, open_session
from segslim.errors import UserError
from segslim.evaluation.metrics import resize_nearest, restore
from segslim.evaluation.windows import Augmented, restore_logits
from segslim.hardware import cores
from segslim.onnx_graph import write_logits_model
from segslim.predict.preprocessing import Step, Transform, apply, transform_from_node


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it (1,C,H,W float32), and the changes of its size."""

    input: NDArray[np.float32]
    steps: list[Step]

    @property
    def shrinks(self) -> float:
        """How many times longer a side of the image was than it is for the network."""
        height, width = self.input.shape[2:]
        return max((max(was[0] / height, was[1] / width) for *was, padded in self.steps if not padded), default=1.0)


@dataclass(frozen=True)
class Predictor:
    """A deployment, opened by an engine. `prepare` may run in other threads than `run`."""

    deployment: Deployment
    transforms: Sequence[Transform]
    session: Session  # where images are augmented, one that gives logits
    augmented: Augmented | None = None

    @property
    def reading(self) -> Reading:
        return Reading(self.deployment.channels, self.deployment.max_value)

    def read(self, image: Path) -> NDArray[Any]:
        """H,W,C in 0..255 of an image file, as the network takes it. Raises UserError for a bad one."""
        return read_image(image, "", self.reading)

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids H,W of an image H,W,C in 0..255. Raises UserError for an image that the deployment cannot take."""
        return self.run(self.prepare(image))

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Applies the transforms. Raises UserError where the outcome does not fit the network."""
        prepared = Prepared(*apply(self.transforms, image))
        height, width = prepared.input.shape[2:]
        wanted = self.deployment.input_size
        if self.augmented is None and wanted is not None and (width, height) != wanted:
            raise UserError(
                f"the transforms make it {width} x {height}, but the network takes {wanted[0]} x {wanted[1]}: "
                "resize it, or export with export.size=dynamic"
            )
        return prepared

    def run(self, prepared: Prepared) -> NDArray[np.uint8]:
        """Runs the network. Raises UserError where the engine fails or gives anything but classes."""

        if self.augmented:
            logits = restore_logits(self.augmented.logits(self.output, prepared.input), prepared.steps)
            return np.ascontiguousarray(class_ids(logits))
        ids = resize_nearest(class_ids(self.output(prepared.input)), *prepared.input.shape[2:])
        return np.ascontiguousarray(restore(ids, prepared.steps))

    def output(self, image: NDArray[np.float32]) -> NDArray[Any]:
        """What the engine gives of an image 1,C,H,W. Raises UserError where it fails."""
        try:
            return self.session.run({self.session.input_names[0]: image})[0]
        except Exception as error:  # each engine raises its own kind
            raise UserError(f"{self.session.name} cannot run it: {one_line(error)}") from None


def open_predictor(
    folder: Path,
    engine: str = "onnxruntime",
    threads: int = 0,
    augmented: Augmented | None = None,
    precision: str = "float32",
) -> Predictor:
    """Opens an export folder with `engine`, computing in `precision`, on `threads` threads (0: all cores).

    With `augmented` images are predicted by windows, scales and flips; windows slide over what the last Resize to the
    network's size would shrink.

    Raises UserError for a folder that is no export, for a transform that cannot be applied, and for an engine that is
    unknown, not installed or fails.
    """
    deployment = Deployment.load(folder)
    transforms = [
        transform_from_node(node, f"{folder}: transforms[{index}]") for index, node in enumerate(deployment.transforms)
    ]
    if engine not in OWN_FILES:
        deployment.check_onnx_file()
    if augmented is not None:
        transforms, augmented = _for_windows(deployment, transforms, augmented)
    try:
        if augmented is None:
            session = open_session(engine, deployment, threads=threads or cores(), precision=precision)
        else:
            session = _session_of_logits(engine, deployment, threads or cores())
    except UserError:
        raise
    except Exception as error:  # each engine raises its own kind
        raise UserError(f"{engine} cannot open the model in {folder}: {one_line(error)}") from None
    if len(session.input_names) != 1:
        raise UserError(f"the model in {folder} has {len(session.input_names)} inputs, not one image: export it again")
    return Predictor(deployment, transforms, session, augmented)


def _for_windows(deployment: Deployment, transforms: list[Any], augmented: Augmented) -> tuple[list[Any], Augmented]:
    """The transforms that leave something for windows to slide over, and windows of the size that the network takes."""
    size = deployment.input_size
    if size is not None and augmented.crop_size not in (None, size):
        raise UserError(f"--crop_size should be {size[0]} {size[1]}, which the network takes; or leave it away")
    slides = augmented.crop_size is not None
    sized = [each for each in transforms if slides and getattr(each, "target_size", None) == size]
    left = [each for each in transforms if each is not (sized or [None])[-1]]
    return left, replace(augmented, crop_size=augmented.crop_size or size, fixed=size is not None)


def _session_of_logits(engine: str, deployment: Deployment, threads: int) -> Session:
    if engine in OWN_FILES:
        raise UserError(f"--engine {engine} gives no logits, which windows, scales and flips need: choose onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "logits.onnx")
        write_logits_model(deployment.onnx_file, file)
        return open_session(engine, file, threads=threads)


def class_ids(output: NDArray[Any]) -> NDArray[np.uint8]:
    """H,W of the deployed network's output: class ids 1,H,W, or probabilities or logits 1,C,H,W."""
    ids = output.argmax(axis=1) if output.ndim == 4 else output
    if ids.ndim != 3 or len(ids) != 1 or ids.dtype.kind not in "iu" or not ids.size:
        raise UserError(f"the network gives {output.dtype} {output.shape}, which is no class for each pixel")
    if not 0 <= ids.min() <= ids.max() <= 255:
        raise UserError(f"the network gives classes {ids.min()} to {ids.max()}: a mask holds 0 to 255")
    return ids[0].astype(np.uint8)
