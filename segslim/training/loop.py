"""The training loop: steps, evaluations of which the best is kept, and snapshots to go on from."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segslim.errors import Interrupted, UserError
from segslim.paddle_compat import import_paddle, keep_freed_memory
from segslim.training.losses import Losses
from segslim.training.options import FitOptions, learning_rate
from segslim.training.parallel.group import ALONE, Group
from segslim.training.parallel.whole_batch import normalize_together
from segslim.training.sgd import Sgd, diverged
from segslim.training.snapshot import Snapshot, read_snapshot, write_snapshot

__all__ = ["FitOptions", "FitResult", "Progress", "fit"]

Batches = Callable[[int], Iterable[Mapping[str, Any]]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a training is after a step; times are in seconds. `miou` is there where this step was evaluated."""

    iteration: int
    iters: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    miou: float | None = None


@dataclass(frozen=True)
class FitResult:
    """The best evaluation, and for each evaluation {iteration, loss (mean since the last), learning_rate, miou}.

    Without an evaluation `best_miou` is None, and `best_iter` the last iteration.
    """

    best_miou: float | None
    best_iter: int
    history: list[dict[str, Any]]


@dataclass
class _Course:
    """Where a training is; all that it needs, beside the network and the momentum, to go on."""

    iteration: int = 0
    loss_sum: float = 0.0  # since the last evaluation
    history: list[dict[str, Any]] = field(default_factory=list)
    best_miou: float | None = None
    best_iter: int = 0
    best: dict[str, np.ndarray] = field(default_factory=dict)


def fit(
    network: Any,
    batches_from: Batches,
    losses: Losses,
    options: FitOptions,
    scratch: Path,
    evaluate: Callable[[Any], float] | None,
    progress: Callable[[Progress], None],
    teacher: Any = None,
    stop: Callable[[], int] = lambda: 0,
    group: Group = ALONE,
) -> FitResult:
    """Trains `network` in place; it is left in evaluation mode, with the weights of its best evaluation.

    `batches_from(i)` gives the batches of iterations i, i + 1, ...: {"img": N,3,H,W float32, "label": N,H,W int64}.
    `evaluate(network)` returns its mIoU; without it the last weights count. `scratch` is a folder of this training:
    where it holds a snapshot of the same training, that is gone on from, on the CPU to a bit-identical end. `stop()` is
    asked after every step: where it gives the number of a signal, a snapshot is written and the training ends.
    With `options.distillation` the network also learns from `teacher`, which is put into evaluation mode and else left
    as it is. The processes of a `group` call this with their shares of the batches; the one that leads evaluates and
    writes, and its result and network count.

    Raises UserError when the device is missing, the losses do not fit the network's heads, or the numbers diverge, and
    Interrupted when it was stopped.
    """
    _use_device(options)
    if teacher is not None:
        teacher.eval()
    normalize_together(network, group)
    sgd = Sgd(network, losses, options, teacher, group)
    course = _resume(network, sgd, options, scratch)
    started, first = time.monotonic(), course.iteration
    network.train()
    for batch in islice(batches_from(first), options.iters - first):
        loss = sgd.step(batch, course.iteration)
        course.iteration += 1
        course.loss_sum += loss
        if _due(course.iteration, options.eval_interval, options):
            _take_stock(network, course, options, evaluate if group.leads else None)
        progress(_progress(course, loss, options, group.size * len(batch["img"]), time.monotonic() - started, first))
        signal = stop()
        if group.leads and (signal or _due(course.iteration, options.save_interval, options)):
            write_snapshot(scratch, _snapshot(network, sgd, course, options))
        if signal:
            raise Interrupted(signal, f"training is saved at iteration {course.iteration} of {options.iters}")
    if course.iteration < options.iters:
        raise ValueError(f"batches_from({first}) gave {course.iteration - first} of {options.iters - first} batches")
    return _finish(network, course)


def _finish(network: Any, course: _Course) -> FitResult:
    if course.best:
        _set(network, course.best)
    network.eval()
    return FitResult(course.best_miou, course.best_iter, course.history)


def _use_device(options: FitOptions) -> None:
    paddle = import_paddle()
    if options.device.startswith("gpu") and not paddle.device.is_compiled_with_cuda():
        raise UserError(
            f"device={options.device}: this Paddle is made for the CPU; install the gpu group, or device=cpu"
        )
    if options.amp and options.device == "cpu":
        raise UserError("amp=true: mixed precision needs device=gpu; give amp=false")
    paddle.set_device(options.device)
    keep_freed_memory()


def _due(iteration: int, interval: int, options: FitOptions) -> bool:
    return iteration % interval == 0 or iteration == options.iters


def _take_stock(network: Any, course: _Course, options: FitOptions, evaluate: Callable[[Any], float] | None) -> None:
    steps = course.iteration - (course.history[-1]["iteration"] if course.history else 0)
    entry = {
        "iteration": course.iteration,
        "loss": course.loss_sum / steps,
        "learning_rate": learning_rate(course.iteration - 1, options),
    }
    course.loss_sum = 0.0
    course.history.append(entry)
    if evaluate is None:
        course.best_iter = course.iteration
        return
    network.eval()
    entry["miou"] = float(evaluate(network))
    network.train()
    if course.best_miou is None or entry["miou"] > course.best_miou:
        course.best_miou, course.best_iter, course.best = entry["miou"], course.iteration, _weights(network)


def _snapshot(network: Any, sgd: Sgd, course: _Course, options: FitOptions) -> Snapshot:
    plain = {item.name: getattr(course, item.name) for item in dataclasses.fields(course) if item.name != "best"}
    record = {"of": _identity(options), "course": plain, "scaler": sgd.scaler_state()}
    weights = _weights(network)
    for name, array in weights.items():
        if not np.isfinite(array).all():  # a rectifier turns NaN into 0, so the loss need not show it
            raise diverged(f"{name} holds no numbers", course.iteration, options)
    return Snapshot(weights, sgd.velocity(), course.best, record)


def _resume(network: Any, sgd: Sgd, options: FitOptions, scratch: Path) -> _Course:
    snapshot = read_snapshot(scratch)
    if snapshot is None:
        return _Course()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    same_network = shapes == {name: array.shape for name, array in snapshot.weights.items()}
    if not same_network or snapshot.record.get("of") != _identity(options):
        _log.warning("%s holds another training, of other options or another network: training starts anew", scratch)
        return _Course()
    _set(network, snapshot.weights)
    sgd.restore(snapshot.velocity, snapshot.record["scaler"])
    course = _Course(**snapshot.record["course"], best=dict(snapshot.best))
    _log.info("training goes on from iteration %d", course.iteration)
    return course


def _identity(options: FitOptions) -> dict[str, Any]:
    """What changes the result of a training, and so tells it from another."""
    return {key: value for key, value in dataclasses.asdict(options).items() if key not in ("device", "save_interval")}


def _progress(course: _Course, loss: float, options: FitOptions, images: int, seconds: float, first: int) -> Progress:
    iteration = course.iteration
    per_step = seconds / (iteration - first)
    stock = course.history[-1] if course.history else {}
    return Progress(
        iteration,
        options.iters,
        loss,
        learning_rate(iteration - 1, options),
        images_per_second=images / per_step,
        seconds_left=per_step * (options.iters - iteration),
        miou=stock.get("miou") if stock.get("iteration") == iteration else None,
    )


def _weights(network: Any) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in network.state_dict().items()}


def _set(network: Any, weights: Mapping[str, np.ndarray]) -> None:
    for name, tensor in network.state_dict().items():
        tensor.set_value(weights[name])
