"""mIoU of a network or a deployed file over the validation images: the one way in which every stage measures it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data import Pair
from segslim.data.loading import ValidationBatches, validation_batches
from segslim.deployment.engines import Session, open_session
from segslim.evaluation.confusion import Scores
from segslim.evaluation.evaluate import evaluate
from segslim.stages.shared.graphs import write_class_ids_graph
from segslim.stages.shared.sessions import threads
from segslim.stages.shared.transforms import transforms

Batches = Iterable[tuple[np.ndarray, list[np.ndarray]]]


def batches(config: Config, pairs: Sequence[Pair]) -> ValidationBatches:
    """Single images 1,3,H,W after the validation transforms, with their labels: what the deployed network is given."""
    return validation_batches(pairs, transforms(config, "val"), batch_size=1)


def score(
    session: Session,
    config: Config,
    images: Batches,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """The scores of a session whose output is class ids, probabilities or logits."""
    name = session.input_names[0]

    def predict(image: np.ndarray) -> np.ndarray:
        return class_ids(session.run({name: image})[0])

    return evaluate(predict, images, config.dataset.num_classes, config.dataset.ignore_index, progress)


def score_network(network: Any, config: Config, pairs: Sequence[Pair], folder: Path) -> Scores:
    """The same for a network in training, exported to a file in `folder`: an engine is 8 to 40 times faster than it."""
    file = folder / "validation.onnx"
    write_class_ids_graph(network, config, file)
    session = open_session("onnxruntime", file, threads=threads(config))
    return score(session, config, batches(config, pairs))


def class_ids(output: np.ndarray) -> np.ndarray:
    """N,H,W class ids of a deployed network's output, whichever of its three forms it has."""
    return output if output.ndim == 3 else output.argmax(axis=1)
