"""Compares an exported ONNX file with the network that it came from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from segslim.errors import UserError

ERRORS_ONLY = 3


@dataclass(frozen=True)
class Difference:
    """How far an ONNX file is from its network, at worst over some images.

    `relative` is the largest difference of two logits by the largest logit; `equal_pixels` the share of pixels that get
    the same class.
    """

    relative: float
    equal_pixels: float


def compare(
    file: Path, output: str, logits_of: Callable[[np.ndarray], np.ndarray], images: Iterable[np.ndarray]
) -> Difference:
    """Compares the logits of `file` in ONNX Runtime, whatever its `output`, with `logits_of` each of `images`, N,C,H,W.

    Raises UserError if it does not load, shapes differ, numbers are not finite, or its softmax or argmax is not that of
    its logits.
    """
    session = _session_with_logits(file)
    relative, equal_pixels = 0.0, 1.0
    for image in images:
        expected = logits_of(image)
        deployed, logits = (session.run(None, {session.get_inputs()[0].name: image}) * 2)[:2]
        if logits.shape != expected.shape:
            raise UserError(f"{file}: the exported logits are {logits.shape}, and the network's are {expected.shape}")
        if not np.isfinite(logits).all() or not np.isfinite(expected).all():
            raise UserError(f"{file}: the logits of a random image are not finite; look at the weights")
        _check_output(file, output, deployed, logits)
        relative = max(relative, float(np.abs(logits - expected).max() / (np.abs(expected).max() or 1.0)))
        equal_pixels = min(equal_pixels, float((logits.argmax(1) == expected.argmax(1)).mean()))
    return Difference(relative, equal_pixels)


def _session_with_logits(file: Path) -> onnxruntime.InferenceSession:
    """A session with the file's own output and, where that is made from the logits, these as a second one."""
    model = onnx.load(file)
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers[model.graph.output[0].name]
    if model.graph.output[0].name != "logits":
        while node.op_type not in ("ArgMax", "Softmax"):
            node = producers[node.input[0]]
        model.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a kind of its own for everything, with no base but this
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{file}: ONNX Runtime does not load what paddle2onnx wrote: {reason}") from error


def _check_output(file: Path, output: str, deployed: np.ndarray, logits: np.ndarray) -> None:
    if output == "argmax":
        right = deployed.dtype == np.int32 and np.array_equal(deployed, logits.argmax(1))
    elif output == "softmax":
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        right = np.allclose(deployed, exponentials / exponentials.sum(1, keepdims=True), atol=1e-5)
    else:
        right = True
    if not right:
        raise UserError(
            f"{file}: the exported {output} is not that of the exported logits; choose export.output=logits"
        )
