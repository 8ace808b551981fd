"""Ranges of activations, measured by running the float ONNX graph on images with every int8 tensor as an output."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from segslim.errors import UserError
from segslim.quantization.fold import fold_batch_norm
from segslim.quantization.observers import BINS, Seen, observe
from segslim.quantization.placement import place
from segslim.quantization.table import Range

Images = Sequence[np.ndarray]
Progress = Callable[[int, int], None]
FEWEST = 4


def check_count(images: int) -> None:
    """Raises UserError where there are fewer than FEWEST: their largest values say nothing of other images."""
    if images < FEWEST:
        raise UserError(
            f"dataset: {images} training images are too few to calibrate on; give at least {FEWEST},"
            " or a strategy without quantization"
        )


def watch(
    model: ModelProto,
    images: Images,
    threads: int,
    histogram: bool = True,
    progress: Progress = lambda done, total: None,
) -> dict[str, Seen]:
    """What is seen of each tensor of `model` that can be int8, over `images` (1,3,H,W float32 each).

    Two passes where histograms are wanted: the bins can be laid only when the largest value is known.
    """
    probe = _Probe(model, threads)
    passes = 2 if histogram else 1
    total = passes * len(images)
    least: dict[str, float] = dict.fromkeys(probe.tensors, np.inf)
    largest: dict[str, list[float]] = {name: [] for name in probe.tensors}
    for done, image in enumerate(images):
        for name, array in probe.run(image):
            least[name] = min(least[name], float(array.min()))
            largest[name].append(float(np.abs(array).max()))
        progress(done + 1, total)
    if not histogram:
        return {name: Seen(least[name], tuple(largest[name])) for name in probe.tensors}
    counts = {name: np.zeros(BINS, np.int64) for name in probe.tensors}
    for done, image in enumerate(images):
        for name, array in probe.run(image):
            counts[name] += _histogram(array, max(largest[name]))
        progress(len(images) + done + 1, total)
    return {name: Seen(least[name], tuple(largest[name]), counts[name]) for name in probe.tensors}


def ranges(seen: dict[str, Seen], observer: str, percentile: float) -> dict[str, Range]:
    """The range of each tensor by an observer of observers.py."""
    return {name: observe(observer, of, percentile) for name, of in seen.items()}


@dataclass
class _Probe:
    """A session of the graph with batch norm folded, whose outputs are the tensors that can be int8."""

    model: ModelProto
    threads: int
    tensors: list[str] = field(init=False)

    def __post_init__(self) -> None:
        copy = ModelProto.FromString(self.model.SerializeToString())
        fold_batch_norm(copy)
        self.tensors = list(place(copy).groups)
        self._input = copy.graph.input[0].name
        self._computed = [name for name in self.tensors if name != self._input]
        del copy.graph.output[:]
        copy.graph.output.extend(ValueInfoProto(name=name) for name in self._computed)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=providers)

    def run(self, image: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
        yield from zip(self._computed, self._session.run(self._computed, {self._input: image}), strict=True)
        if self._input in self.tensors:
            yield self._input, image


def _histogram(array: np.ndarray, top: float) -> np.ndarray:
    if top == 0:
        counts = np.zeros(BINS, np.int64)
        counts[0] = array.size
        return counts
    bins = np.abs(array).ravel()
    bins *= np.float32(BINS / top)
    return np.bincount(np.minimum(bins.astype(np.int32), BINS - 1), minlength=BINS)
