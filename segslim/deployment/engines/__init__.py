"""Engines that run a Deployment: one file an engine, one interface; each is imported only when it is opened.

No engine knows another, nor what it runs. An engine is called by its name in ENGINES, or is the function `open_session`
at `package.module:open_session`, anywhere that Python can import it from. `select` finds the fastest.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segslim.errors import UserError
from segslim.hardware import instruction_set, saturates

if TYPE_CHECKING:  # what stands here runs on a board, too, where there is neither YAML nor pydantic
    from segslim.deployment.deployment import Deployment

ENGINES: dict[str, str] = {
    "paddle": "segslim.deployment.engines.paddle_inference",
    "onnxruntime": "segslim.deployment.engines.onnx_runtime",
    "openvino": "segslim.deployment.engines.openvino",
    "mnn": "segslim.deployment.engines.mnn",
    "ncnn": "segslim.deployment.engines.ncnn",
    "tensorrt": "segslim.deployment.engines.tensorrt",
}
# An engine is named as the package that it needs, but for capitals.
PACKAGES = {"mnn": "MNN"}
# These read a file of their own in the deployment; the others read ONNX.
OWN_FILES = ("paddle", "mnn", "ncnn")
# What `select` asks of an engine: equal pixels of class ids, or the largest difference divided by the largest value.
LEAST_EQUAL_PIXELS = 0.999
LARGEST_DIFFERENCE = 1e-3
# In less than float32 engines round differently; how good such a deployment is, is measured on all images.
LEAST_EQUAL_PIXELS_ROUNDED = 0.9
LARGEST_DIFFERENCE_ROUNDED = 0.2

logger = logging.getLogger(__name__)


class Session(Protocol):
    """A Deployment loaded by one engine."""

    name: str
    input_names: list[str]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The deployment's outputs for one batch; the arrays are the caller's to keep."""

    def describe(self) -> dict[str, Any]:
        """Name and version of the engine, and the device, threads and precision that it was opened with."""


class Unreachable(UserError):
    """The machine that times is gone: it says nothing of an engine."""


@dataclass(frozen=True)
class NodeTime:
    """What an engine took for one of its own nodes: `names` of the nodes and tensors of the file that are in it, as far
    as it tells them, its type, and milliseconds, of the quickest of some runs.
    """

    names: tuple[str, ...]
    op_type: str
    ms: float


def node_times(
    name: str, deployment: "Deployment", inputs: Mapping[str, np.ndarray], runs: int, *, threads: int, precision: str
) -> list[NodeTime]:
    """Of each node, in the order in which they run; empty where the engine's file has no function `node_times`.

    Measuring each node slows down all of them: only their shares count.
    """
    if name not in ENGINES or not hasattr(_module(name), "node_times"):
        return []
    options = {"threads": threads, "precision": precision, "device": "cpu"}
    found: list[NodeTime] = _module(name).node_times(deployment, inputs, runs, **options)
    return found


def available(names: Iterable[str] = tuple(ENGINES)) -> list[str]:
    """Those of the engines that are here: whose packages are installed, or that are named by their function."""
    return [
        name for name in names if ":" in name or (name in ENGINES and find_spec(PACKAGES.get(name, name)) is not None)
    ]


def computes_in(name: str) -> list[str]:
    """The float types that the installed engine `name` can compute in on this machine's processor.

    They are what `precisions` of its file gives, and float32 where it has no such function.
    """
    return list(getattr(_module(name), "precisions", lambda: ["float32"])())


def runs_int8(name: str) -> bool:
    """Whether the installed engine `name` computes an int8 deployment in int8 on this machine.

    So does every engine whose file has no function `runs_int8` that denies it.
    """
    return bool(getattr(_module(name), "runs_int8", lambda: True)())


def open_session(
    name: str, deployment: "Deployment | Path", *, threads: int, precision: str = "float32", device: str = "cpu"
) -> Session:
    """Loads a deployment with an engine.

    Args:
        name: one of ENGINES, or `package.module:open_session`.
        deployment: a Deployment or its folder, or an .onnx file for the engines that read ONNX.
        threads: of the engine, at least 1.
        precision: the float type that it computes in, where the deployment is not int8.
        device: "cpu" or "gpu".

    Raises UserError where the engine is unknown or not installed, or cannot do this precision, device or int8 here.
    """
    if name not in ENGINES and ":" not in name:
        raise UserError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    if not available([name]):
        raise UserError(
            f"engine {name} is not installed: pip install {name}, or choose one of {', '.join(available())}"
        )
    if threads < 1:
        raise UserError(f"engine {name} cannot run with {threads} threads; give at least 1")
    if isinstance(deployment, Path):
        from segslim.deployment.deployment import Deployment

        read = Deployment.from_onnx if deployment.suffix == ".onnx" else Deployment.load
        deployment = read(deployment)
    if deployment.precision.is_int8 and not runs_int8(name):
        able = [other for other in available() if runs_int8(other)]
        raise UserError(f"engine {name} does not compute in int8 on this machine; choose {' or '.join(able)}")
    if name != "tensorrt":
        _warn_of_saturation(deployment)
    session: Session = _opener(name)(deployment, threads=threads, precision=precision, device=device)
    return session


def _opener(name: str) -> Any:
    if name in ENGINES:
        return _module(name).open_session
    from segslim.plugins import import_path

    return import_path(name, "engine")


def _warn_of_saturation(deployment: "Deployment") -> None:
    target = deployment.precision.target
    if deployment.precision.is_int8 and saturates(target, instruction_set()):
        logger.warning(
            "%s is made for %s (export.target): on this processor, which has AVX2 alone, int8 kernels saturate and"
            " classes may be wrong; export again with export.target=any",
            deployment.onnx_file.name,
            target,
        )


def require(engine: str, what: str, value: str, choices: list[str]) -> None:
    """Raises UserError unless `value` is among the `choices` that `engine` has here of a device or a precision."""
    if value not in choices:
        raise UserError(
            f"engine {engine} cannot do {what} {value!r} on this machine; choose one of {', '.join(choices)}"
        )


def _module(name: str) -> ModuleType:
    return import_module(ENGINES[name] if name in ENGINES else name.partition(":")[0])


@dataclass(frozen=True)
class Candidate:
    """An engine and what it is asked to compute in and on."""

    engine: str
    precision: str = "float32"
    device: str = "cpu"


#: From what runs each candidate to the milliseconds that it takes: the best first.
Ranking = Callable[[Mapping[Candidate, Callable[[], object]]], Mapping[Candidate, float]]


@dataclass(frozen=True)
class Choice:
    """What became of a candidate. All fields go into JSON as they are.

    `agreement` is the share of equal pixels where `measure` is "equal_pixels", and the largest difference divided by
    the largest reference value where it is "relative_difference"; `latency_ms` the median of a run; `session` what the
    session says of itself. They are None where it did not come so far: `excluded` then says why, and is None for a
    candidate that can be used.
    """

    candidate: Candidate
    measure: str
    agreement: float | None = None
    latency_ms: float | None = None
    session: dict[str, Any] | None = None
    excluded: str | None = None


def select(
    deployment: "Deployment | Path",
    candidates: Sequence[Candidate],
    *,
    threads: int,
    inputs: Mapping[str, np.ndarray],
    reference: np.ndarray,
    ranking: Ranking,
    exact: bool = True,
    opened: "Callable[[Candidate], Session] | None" = None,
) -> list[Choice]:
    """Finds the best engine for a deployment among those that give the reference output.

    Args:
        deployment: what is run, as for open_session.
        candidates: engines to try.
        threads: of each engine.
        inputs: one batch by the name of the input.
        reference: the right output for it: class ids (integers), or logits or probabilities (floats).
        ranking: times those that agree, given with what runs each, and names the milliseconds of each, the best first.
        exact: False where less than float32 is computed in: less agreement does then (see the constants above).
        opened: gives the session of a candidate where that is not opened in this process.

    Returns the candidates that agree, the best first, and after them the excluded. Raises UserError, with everyone's
    reason, if none agrees.
    """
    sessions: dict[Candidate, Session] = {}
    choices = []
    for candidate in candidates:
        choice, session = open_and_compare(deployment, candidate, threads, inputs, reference, exact, opened)
        choices.append(choice)
        if session is not None and choice.excluded is None:
            sessions[candidate] = session
    if not sessions:
        reasons = "; ".join(f"{choice.candidate.engine}: {choice.excluded}" for choice in choices)
        folder = deployment if isinstance(deployment, Path) else deployment.folder
        raise UserError(f"no engine runs {folder} as Paddle does ({reasons or 'none was given'}); set engine yourself")
    latencies = ranking({candidate: partial(session.run, inputs) for candidate, session in sessions.items()})
    by_candidate = {choice.candidate: choice for choice in choices}
    agreeing = [replace(by_candidate.pop(candidate), latency_ms=latencies[candidate]) for candidate in latencies]
    return [*agreeing, *by_candidate.values()]


def open_and_compare(
    deployment: "Deployment | Path",
    candidate: Candidate,
    threads: int,
    inputs: Mapping[str, np.ndarray],
    reference: np.ndarray,
    exact: bool,
    opened: "Callable[[Candidate], Session] | None" = None,
) -> tuple[Choice, Session | None]:
    """What becomes of one candidate, before it is timed, and its session where it opened; arguments as of `select`."""
    is_classes = np.issubdtype(reference.dtype, np.integer)
    choice = Choice(candidate, "equal_pixels" if is_classes else "relative_difference")
    options = {"precision": candidate.precision, "device": candidate.device}
    try:
        if opened is not None:
            session = opened(candidate)
        else:
            session = open_session(candidate.engine, deployment, threads=threads, **options)
        output = session.run(inputs)[0]
    except Unreachable:
        raise
    except Exception as error:  # each engine raises its own kind, and whatever it is, another engine may do better
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        return replace(choice, excluded=reason), None
    choice = replace(choice, session=session.describe())
    if output.shape != reference.shape:
        return replace(choice, excluded=f"output of shape {output.shape}, where Paddle's is {reference.shape}"), None
    # a NaN in the output compares as false: it does not agree
    if is_classes:
        agreement = float((output == reference).mean())
        agrees = agreement >= (LEAST_EQUAL_PIXELS if exact else LEAST_EQUAL_PIXELS_ROUNDED)
        reason = f"only {agreement:.2%} of the pixels get Paddle's class"
    else:
        agreement = float(np.abs(output - reference).max() / (np.abs(reference).max() or 1.0))
        agrees = agreement <= (LARGEST_DIFFERENCE if exact else LARGEST_DIFFERENCE_ROUNDED)
        reason = f"differs by {agreement:.1e} of the largest value"
    return replace(choice, agreement=agreement, excluded=None if agrees else reason), session
