"""The training loop: steps, evaluations of which the best is kept, and snapshots to resume from."""

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
from segslim.training.files import Snapshot, read_snapshot, write_snapshot
from segslim.training.losses import Losses
from segslim.training.optimizer import FitOptions, Optimizer, divergence, learning_rate
from segslim.training.process_group import ALONE, ProcessGroup
from segslim.training.synchronized import batch_norms, convert_for_gpus

__all__ = ["FitOptions", "FitResult", "Progress", "fit"]

_log = logging.getLogger(__name__)
_AVERAGE = "average/"  # in a snapshot, before the name of a weight


@dataclass(frozen=True)
class Progress:
    """The state of a training after a step; times in seconds. `miou` is None unless this step was evaluated."""

    iteration: int
    iters: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    miou: float | None = None


@dataclass(frozen=True)
class FitResult:
    """The best evaluation, and for each one {iteration, loss (mean since the last), learning_rate, miou}.

    That of iteration 0, the start, has no loss and no rate. Without an evaluation `best_miou` is None, and `best_iter`
    the last iteration.
    """

    best_miou: float | None
    best_iter: int
    history: list[dict[str, Any]]


@dataclass
class _State:
    """All that a training needs to go on, beside the network and the optimizer."""

    iteration: int = 0
    loss_sum: float = 0.0  # since the last evaluation
    history: list[dict[str, Any]] = field(default_factory=list)
    best_miou: float | None = None
    best_iter: int = 0
    best: dict[str, np.ndarray] = field(default_factory=dict)
    averages: dict[str, Any] = field(default_factory=dict)  # of the weights, with options.ema; tensors


def fit(
    network: Any,
    batches_from: Callable[[int], Iterable[Mapping[str, Any]]],
    losses: Losses,
    options: FitOptions,
    scratch: Path,
    evaluate: Callable[[Any], float] | None,
    progress: Callable[[Progress], None],
    teacher: Any = None,
    stop: Callable[[], int] = lambda: 0,
    group: ProcessGroup = ALONE,
) -> FitResult:
    """Trains `network` in place. It ends in evaluation mode, with the weights of its best evaluation.

    Args:
        network: gives one N,C,H,W tensor of logits per head in training mode.
        batches_from: called with i, yields the batches of iterations i, i + 1, ...: {"img": N,3,H,W float32, "label":
            N,H,W int64}. Each process of a group yields its share.
        losses: one per head.
        options: how it is trained.
        scratch: a folder of this training. From a snapshot of the same training in it, fit resumes, on the CPU to a
            bit-identical end.
        evaluate: called with the network in evaluation mode, returns its mIoU; if None, the last weights are kept.
        progress: called after every step.
        teacher: the network to distill from with `options.distillation`; put into evaluation mode, else unchanged.
        stop: asked after every step; once it returns a signal's number, a snapshot is written and the training ends.
        group: the processes that train together. The one that leads evaluates and writes, and its result counts.

    Raises UserError when the device is missing, the losses do not fit the network's heads, or the numbers diverge, and
    Interrupted when it was stopped.
    """
    _set_device(options)
    if teacher is not None:
        teacher.eval()
    convert_for_gpus(network, group)
    optimizer = Optimizer(network, losses, options, teacher, group)
    state = _resume(network, optimizer, options, scratch)
    if not group.leads:
        evaluate = None
    if options.evaluate_start and evaluate is not None and state.iteration == 0:
        _evaluate(network, state, {"iteration": 0}, evaluate)
    started, first = time.monotonic(), state.iteration
    _set_training_mode(network, options)
    for batch in islice(batches_from(first), options.iters - first):
        loss = optimizer.step(batch, state.iteration)
        state.iteration += 1
        state.loss_sum += loss
        if options.ema is not None and group.leads:
            _average(network, state, options.ema)
        is_evaluated = _is_due(state.iteration, min(options.eval_interval, -(-options.iters // 4)), options)
        if is_evaluated:
            _close_interval(network, state, options, evaluate)
        progress(_progress(state, loss, options, group.size * len(batch["img"]), time.monotonic() - started, first))
        signal = stop()
        if group.leads and (signal or _is_due(state.iteration, options.save_interval, options)):
            write_snapshot(scratch, _snapshot(network, optimizer, state, options))
        if signal:
            raise Interrupted(signal, f"training is saved at iteration {state.iteration} of {options.iters}")
        if is_evaluated and options.early_stop is not None and _stale(state, group) >= options.early_stop:
            _log.info("training ends at iteration %d: no better since %d", state.iteration, state.best_iter)
            break
    else:
        if state.iteration < options.iters:
            raise ValueError(f"batches_from({first}) gave {state.iteration - first} of {options.iters - first} batches")
    if state.best:
        _set_weights(network, state.best)
    network.eval()
    return FitResult(state.best_miou, state.best_iter, state.history)


def _set_device(options: FitOptions) -> None:
    paddle = import_paddle()
    if options.device.startswith("gpu") and not paddle.device.is_compiled_with_cuda():
        raise UserError(
            f"device={options.device}: this Paddle is made for the CPU; install the gpu group, or device=cpu"
        )
    if options.amp and options.device == "cpu":
        raise UserError("amp=true: mixed precision needs device=gpu; give amp=false")
    if options.device.startswith("gpu") and not paddle.device.cuda.device_count():  # Paddle 2.6 crashes
        raise UserError(f"device={options.device}: Paddle finds no GPU here; give device=cpu")
    paddle.set_device(options.device)
    keep_freed_memory()


def _set_training_mode(network: Any, options: FitOptions) -> None:
    network.train()
    if options.freeze_batch_norm:
        for layer in batch_norms(network):
            layer.eval()  # uses the running statistics and leaves them; scale and shift still get gradients


def _is_due(iteration: int, interval: int, options: FitOptions) -> bool:
    return iteration % interval == 0 or iteration == options.iters


def _close_interval(network: Any, state: _State, options: FitOptions, evaluate: Callable[[Any], float] | None) -> None:
    """Adds the interval that ends here to the history, evaluated if `evaluate` is given."""
    steps = state.iteration - (state.history[-1]["iteration"] if state.history else 0)
    entry = {
        "iteration": state.iteration,
        "loss": state.loss_sum / steps,
        "learning_rate": learning_rate(state.iteration - 1, options),
    }
    state.loss_sum = 0.0
    if evaluate is None:
        state.history.append(entry)
        state.best_iter = state.iteration
    else:
        _evaluate(network, state, entry, evaluate)
        _set_training_mode(network, options)


def _evaluate(network: Any, state: _State, entry: dict[str, Any], evaluate: Callable[[Any], float]) -> None:
    """Adds `entry`, with the network's mIoU, to the history, and keeps the weights if they are the best so far."""
    network.eval()
    trained = _weights(network) if state.averages else None
    if state.averages:
        _set_weights(network, state.averages)
    miou = entry["miou"] = float(evaluate(network))
    state.history.append(entry)
    if state.best_miou is None or miou > state.best_miou:
        state.best_miou, state.best_iter, state.best = miou, state.iteration, _weights(network)
    if trained is not None:
        _set_weights(network, trained)


def _stale(state: _State, group: ProcessGroup) -> float:
    """How many evaluations in a row were no better, as the process that leads knows."""
    stale = sum(entry["iteration"] > state.best_iter and "miou" in entry for entry in state.history)
    return float(group.all_gather(np.array(float(stale))).max())


def _average(network: Any, state: _State, decay: float) -> None:
    """Takes the weights into their averages, as PaddleSeg does: the first steps count more."""
    decay = min(1 - 1 / (state.iteration + 1), decay)
    paddle = import_paddle()
    with paddle.no_grad():
        for name, tensor in network.state_dict().items():
            before = state.averages.get(name, tensor)
            state.averages[name] = (
                before * decay + tensor * (1 - decay) if paddle.is_floating_point(tensor) else tensor.clone()
            )


def _snapshot(network: Any, optimizer: Optimizer, state: _State, options: FitOptions) -> Snapshot:
    weights = _weights(network)
    for name, array in weights.items():
        if not np.isfinite(array).all():  # ReLU turns NaN into 0, so the loss need not show it
            raise divergence(f"{name} is not finite", state.iteration, options)
    arrays = ("best", "averages")
    plain = {item.name: getattr(state, item.name) for item in dataclasses.fields(state) if item.name not in arrays}
    record = {"options": _result_options(options), "state": plain, "scaler": optimizer.scaler_state()}
    averages = {f"{_AVERAGE}{name}": tensor.numpy() for name, tensor in state.averages.items()}
    return Snapshot(weights, {**optimizer.state(), **averages}, state.best, record)


def _resume(network: Any, optimizer: Optimizer, options: FitOptions, scratch: Path) -> _State:
    snapshot = read_snapshot(scratch)
    if snapshot is None:
        return _State()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    same_network = shapes == {name: array.shape for name, array in snapshot.weights.items()}
    if not same_network or snapshot.record.get("options") != _result_options(options):
        _log.warning("%s is of another network or other options: training starts from the beginning", scratch)
        return _State()
    _set_weights(network, snapshot.weights)
    kept = {name: array for name, array in snapshot.optimizer.items() if not name.startswith(_AVERAGE)}
    optimizer.restore(kept, snapshot.record["scaler"])
    to_tensor = import_paddle().to_tensor
    averages = {
        name.removeprefix(_AVERAGE): to_tensor(array) for name, array in snapshot.optimizer.items() if name not in kept
    }
    state = _State(**snapshot.record["state"], best=dict(snapshot.best), averages=averages)
    _log.info("training resumes from iteration %d", state.iteration)
    return state


NO_RESULT = ("device", "save_interval", "rate_key", "rate_given")


def _result_options(options: FitOptions) -> dict[str, Any]:
    """Returns the options that change the result of a training, and so tell it from another."""
    return {key: value for key, value in dataclasses.asdict(options).items() if key not in NO_RESULT}


def _progress(state: _State, loss: float, options: FitOptions, images: int, seconds: float, first: int) -> Progress:
    per_step = seconds / (state.iteration - first)
    last = state.history[-1] if state.history else {}
    return Progress(
        state.iteration,
        options.iters,
        loss,
        learning_rate(state.iteration - 1, options),
        images_per_second=images / per_step,
        seconds_left=per_step * (options.iters - state.iteration),
        miou=last.get("miou") if last.get("iteration") == state.iteration else None,
    )


def _weights(network: Any) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in network.state_dict().items()}


def _set_weights(network: Any, weights: Mapping[str, np.ndarray]) -> None:
    for name, tensor in network.state_dict().items():
        tensor.set_value(weights[name])
