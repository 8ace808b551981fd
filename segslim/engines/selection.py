"""Finds the engine that runs a Deployment fastest among those that give Paddle's own output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segslim.engines import Session, open_session
from segslim.errors import UserError

LEAST_EQUAL_PIXELS = 0.999
LARGEST_DIFFERENCE = 1e-3
# in less than float32 engines round differently; how well such a deployment does is measured, on all images
LEAST_EQUAL_PIXELS_ROUNDED = 0.9
LARGEST_DIFFERENCE_ROUNDED = 0.2

#: From runs by name to the milliseconds that each takes, measured so that they can be compared.
Timing = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, float]]


@dataclass(frozen=True)
class Candidate:
    """An engine and what it is asked to compute in and on."""

    engine: str
    precision: str = "float32"
    device: str = "cpu"


@dataclass(frozen=True)
class Choice:
    """What became of a candidate. All fields go into JSON as they are.

    `agreement` is the share of equal pixels where `measure` is "equal_pixels", and the largest difference by the
    largest reference value where it is "relative_difference"; `latency_ms` the median of a run; `session` what the
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
    deployment: Path,
    candidates: Sequence[Candidate],
    *,
    threads: int,
    inputs: Mapping[str, np.ndarray],
    reference: np.ndarray,
    timing: Timing,
    exact: bool = True,
) -> list[Choice]:
    """Opens every candidate, compares its first output for `inputs` with `reference`, and times those that agree.

    `reference` is Paddle's output. Integers are class ids, equal in at least 0.999 of the pixels; floats are logits or
    probabilities, equal to within 1e-3 of the largest. Where it is not `exact`, being computed in less than float32,
    0.9 and 0.2 do. Returns the candidates that agree, fastest first, and after them
    the excluded. Raises UserError, with everyone's reason, if none agrees.
    """
    sessions: dict[Candidate, Session] = {}
    choices = []
    for candidate in candidates:
        choice, session = _try(deployment, candidate, threads, inputs, reference, exact)
        choices.append(choice)
        if session is not None and choice.excluded is None:
            sessions[candidate] = session
    if not sessions:
        reasons = "; ".join(f"{choice.candidate.engine}: {choice.excluded}" for choice in choices)
        raise UserError(
            f"no engine runs {deployment} as Paddle does ({reasons or 'none was given'}); set engine yourself"
        )
    latencies = timing({str(candidate): partial(session.run, inputs) for candidate, session in sessions.items()})
    ranked = [replace(choice, latency_ms=latencies.get(str(choice.candidate))) for choice in choices]
    return sorted(ranked, key=lambda choice: (choice.latency_ms is None, choice.latency_ms))


def _try(
    deployment: Path,
    candidate: Candidate,
    threads: int,
    inputs: Mapping[str, np.ndarray],
    reference: np.ndarray,
    exact: bool,
) -> tuple[Choice, Session | None]:
    is_classes = np.issubdtype(reference.dtype, np.integer)
    choice = Choice(candidate, "equal_pixels" if is_classes else "relative_difference")
    try:
        session = open_session(
            candidate.engine, deployment, threads=threads, precision=candidate.precision, device=candidate.device
        )
        output = session.run(inputs)[0]
    except Exception as error:  # each engine raises its own kind, and whatever it is, another engine may do better
        return replace(
            choice, excluded=str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        ), None
    choice = replace(choice, session=session.describe())
    if output.shape != reference.shape:
        return replace(choice, excluded=f"output of shape {output.shape}, where Paddle's is {reference.shape}"), None
    if is_classes:
        agreement = float((output == reference).mean())
        excluded = (
            agreement < (LEAST_EQUAL_PIXELS if exact else LEAST_EQUAL_PIXELS_ROUNDED)
            and f"only {agreement:.2%} of the pixels get Paddle's class"
        )
    else:
        agreement = float(np.abs(output - reference).max() / (np.abs(reference).max() or 1.0))
        excluded = (
            not agreement <= (LARGEST_DIFFERENCE if exact else LARGEST_DIFFERENCE_ROUNDED)
            and f"differs by {agreement:.1e} of the largest value"
        )
    return replace(choice, agreement=agreement, excluded=excluded or None), session
