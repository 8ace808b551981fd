"""Images to class ids: transforms, engine, and the way back to each image's own size."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segslim.engines import Session, open_session
from segslim.errors import UserError
from segslim.evaluation.metrics import resize_nearest
from segslim.hardware import cores
from segslim.predict.deployment import Deployment, read_deployment
from segslim.predict.preprocessing import Step, apply, restore
from segslim.predict.wording import one_line

ONNX_ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it (1,3,H,W float32), and the changes of its size."""

    input: NDArray[np.float32]
    steps: list[Step]


@dataclass(frozen=True)
class Predictor:
    """A deployment, opened by an engine. `prepare` may run in other threads than `run`."""

    deployment: Deployment
    session: Session

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class ids H,W of an image H,W,3 RGB. Raises UserError for an image that the deployment cannot take."""
        return self.run(self.prepare(image))

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Applies the transforms. Raises UserError where the outcome does not fit the network."""
        prepared = Prepared(*apply(self.deployment.transforms, image))
        height, width = prepared.input.shape[2:]
        wanted = self.deployment.input_size
        if wanted is not None and (width, height) != wanted:
            raise UserError(
                f"the transforms make it {width} x {height}, but the network takes {wanted[0]} x {wanted[1]}: "
                "resize it, or export with export.size=dynamic"
            )
        return prepared

    def run(self, prepared: Prepared) -> NDArray[np.uint8]:
        """Runs the network. Raises UserError where the engine fails or gives anything but classes."""
        try:
            output = self.session.run({self.session.input_names[0]: prepared.input})[0]
        except Exception as error:  # each engine raises its own kind
            raise UserError(f"{self.session.name} cannot run it: {one_line(error)}") from None
        ids = resize_nearest(_class_ids(output), *prepared.input.shape[2:])
        return np.ascontiguousarray(restore(ids, prepared.steps))


def open_predictor(folder: Path, engine: str = "onnxruntime", threads: int = 0) -> Predictor:
    """Opens an export folder with `engine` on `threads` threads (0: all cores).

    Raises UserError for a folder that is no export, and for an engine that is unknown, not installed or fails.
    """
    deployment = read_deployment(folder)
    if engine in ONNX_ENGINES:
        _refuse_external_data(folder / "model.onnx")
    try:
        session = open_session(engine, folder, threads=threads or cores())
    except UserError:
        raise
    except Exception as error:  # each engine raises its own kind
        raise UserError(f"{engine} cannot open the model in {folder}: {one_line(error)}") from None
    if len(session.input_names) != 1:
        raise UserError(f"the model in {folder} has {len(session.input_names)} inputs, not one image: export it again")
    return Predictor(deployment, session)


def _class_ids(output: NDArray[Any]) -> NDArray[np.uint8]:
    """H,W of the deployed network's output: class ids 1,H,W, or probabilities or logits 1,C,H,W."""
    ids = output.argmax(axis=1) if output.ndim == 4 else output
    if ids.ndim != 3 or len(ids) != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"the network gives {output.dtype} {output.shape}, which is no class for each pixel")
    if ids.size and not 0 <= ids.min() <= ids.max() <= 255:
        raise UserError(f"the network gives classes {ids.min()} to {ids.max()}: a mask holds 0 to 255")
    return ids[0].astype(np.uint8)


def _refuse_external_data(file: Path) -> None:
    """Raises UserError for an ONNX file that keeps weights in other files, which could be anywhere."""
    import onnx

    if not file.is_file():
        raise UserError(f"{file} does not exist: export again, or use --engine paddle")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf has several
        raise UserError(f"{file} is not an ONNX file ({one_line(error)}): export again") from None
    training = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    bodies = [model.graph, *model.functions, *training]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for body in bodies for tensor in _tensors(body)):
        raise UserError(f"{file} keeps its weights in other files: export again")


def _tensors(body: Any) -> Iterable[Any]:
    """Those of a graph, or of a function, which has nodes alone."""
    yield from getattr(body, "initializer", ())
    for sparse in getattr(body, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in body.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer or inner.sparse_initializer:
                    yield from _tensors(inner)
