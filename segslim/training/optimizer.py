"""One step of training: the options, the learning rate, and the optimizer's update with its state as arrays."""

import functools
import inspect
import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segslim.errors import UserError
from segslim.paddle_compat import biases_added_by_channel, import_paddle, reason_of
from segslim.plugins import import_path, instantiate
from segslim.training.losses import Distillation, Losses, distillation_loss, segmentation_loss
from segslim.training.process_group import ALONE, ProcessGroup
from segslim.training.synchronized import local_loss, synchronized


@dataclass(frozen=True)
class FitOptions:
    """How a network is trained; intervals are in iterations."""

    iters: int
    learning_rate: float  # the one that decays, see `learning_rate`
    momentum: float = 0.9  # of SGD; Adam has 0.9 and 0.999
    weight_decay: float = 4e-5  # factor of the L2 penalty
    power: float = 0.9  # of SGD's polynomial decay
    warmup_iters: int = 0
    warmup_start_lr: float | None = None  # the rate of the first step of the warmup; None: as much as each step adds
    eval_interval: int = 500  # at most a quarter of the training
    save_interval: int = 100
    seed: int = 0
    device: str = "cpu"
    amp: bool = False  # mixed precision, on GPUs only
    labels: bool = True  # false: the teacher's outputs alone are learned from
    distillation: Distillation | None = None
    optimizer: Literal["sgd", "adam"] | Mapping[str, Any] = "sgd"  # or a `_target_` node, with options of its own
    schedule: Mapping[str, Any] | None = None  # a node of paddle.optimizer.lr in place of the decay
    ema: float | None = None  # the decay of the averages of the weights that are evaluated and kept in their place
    early_stop: int | None = None  # so many evaluations in a row without a better one end the training
    evaluate_start: bool = False  # the given weights are kept if no later ones are better
    rate_key: str = (
        ""  # where the config gives the learning rate, and as what, for messages: that of QAT is a part of it
    )
    rate_given: str = ""
    freeze_batch_norm: bool = False  # normalize by the running statistics and leave them; scale and shift are trained


def learning_rate(iteration: int, options: FitOptions) -> float:
    """Returns the rate of the step after `iteration` steps: a linear warmup, then `options.schedule` or a decay to 0.

    With t the fraction done of the iterations after the warmup, SGD's rate decays by (1 - t) ** power (DeepLab, Chen et
    al., 2017, arXiv:1606.00915), and Adam's by (1 + cos(pi t)) / 2 (Loshchilov and Hutter, 2017, arXiv:1608.03983).
    """
    start, warmup = options.warmup_start_lr, options.warmup_iters
    if iteration < warmup:
        if start is None:
            return options.learning_rate * (iteration + 1) / warmup
        return start + (options.learning_rate - start) * iteration / warmup
    if options.schedule is not None:
        steps = max(options.iters - warmup, 1)
        scheduler = _scheduler(json.dumps(dict(options.schedule)), options.learning_rate, steps)
        scheduler.step(iteration - warmup)  # a rate follows from the iteration alone: nothing is to be resumed
        return float(scheduler())
    done = (iteration - warmup) / (options.iters - warmup)
    decay = (1 + math.cos(math.pi * done)) / 2 if options.optimizer == "adam" else (1 - done) ** options.power
    return options.learning_rate * decay


#: What Adam's first steps, each about as large as its learning rate, change of the weights. Of 1e-3 and more, a
#: converged network (PP-HumanSeg-Lite, pruned by half) lost mIoU in 100 iterations, with less it gained.
RELATIVE_STEP = 2e-3


def relative_rate(network: Any) -> float:
    """Returns the learning rate of Adam for a network that is trained already: RELATIVE_STEP of the root mean square of
    its median layer's weights, of those with at least two axes.
    """
    weights = [tensor.numpy().astype(np.float64) for tensor in network.parameters() if len(tensor.shape) > 1]
    sizes = [float(np.sqrt(np.square(weight).mean())) for weight in weights]
    return RELATIVE_STEP * (float(np.median(sizes)) or 1.0) if sizes else RELATIVE_STEP


#: What a scheduler's arguments are where its node does not give them: the rate, or the steps after the warmup.
_RATES = ("learning_rate", "max_learning_rate", "base_learning_rate")
_STEPS = ("decay_steps", "T_max", "total_steps")
_OF_THE_PAST = ("ReduceOnPlateau", "MultiplicativeDecay")  # their rate follows from earlier ones


@functools.cache
def _scheduler(node: str, rate: float, steps: int) -> Any:
    """The paddle.optimizer.lr.LRScheduler of a `_target_` node in JSON. Raises UserError where it cannot be made."""
    import_paddle()
    given = json.loads(node)
    target = str(given.get("_target_", ""))
    if target.rpartition(".")[2] in _OF_THE_PAST:
        raise UserError(f"train.schedule._target_={target}: its rate follows from earlier ones; give another schedule")
    parameters = inspect.signature(import_path(target, "train.schedule._target_")).parameters
    wanted = {**dict.fromkeys(_RATES, rate), **dict.fromkeys(_STEPS, steps)}
    filled = {name: value for name, value in wanted.items() if name in parameters}
    return instantiate({**filled, **given}, "train.schedule")


def _built(network: Any, parameters: list[Any], options: FitOptions) -> Any:
    """The optimizer of a `_target_` node: a paddle.optimizer.Optimizer, or one of PaddleSeg's, which makes one of the
    network and groups its parameters (`custom_cfg`).
    """
    node = dict(options.optimizer)  # type: ignore[arg-type]
    if str(node.get("_target_", "")).startswith("paddleseg."):
        return instantiate(node, "train.optimizer")(network, options.learning_rate)
    made = instantiate({**node, "_partial_": True}, "train.optimizer")
    return made(learning_rate=options.learning_rate, parameters=parameters)


class Optimizer:
    """Updates a network in place, batch by batch. A new one has no state, whatever came before.

    The processes of a group each pass their share of a batch, and make the same update.

    Args:
        network: the network, in training mode.
        losses: one per head.
        options: how it is trained.
        teacher: the network to distill from, in evaluation mode, if `options.distillation` is given.
        group: the processes that train together.
    """

    def __init__(
        self, network: Any, losses: Losses, options: FitOptions, teacher: Any = None, group: ProcessGroup = ALONE
    ) -> None:
        self._paddle = paddle = import_paddle()
        self._network, self._losses, self._teacher = network, losses, teacher
        self._options, self._group = options, group
        self._parameters = {
            name: tensor for name, tensor in network.named_parameters() if not tensor.stop_gradient and tensor.trainable
        }
        common: dict[str, Any] = {
            "learning_rate": options.learning_rate,
            "weight_decay": options.weight_decay,
            "parameters": list(self._parameters.values()),
        }
        if options.optimizer == "adam":
            self._optimizer = paddle.optimizer.Adam(beta1=0.9, beta2=0.999, **common)
        elif options.optimizer == "sgd":
            self._optimizer = paddle.optimizer.Momentum(momentum=options.momentum, **common)
        else:
            self._optimizer = _built(network, common["parameters"], options)
        # fp16 gradients underflow: they are scaled, and steps whose gradients overflow are skipped
        self._scaler = paddle.amp.GradScaler(enable=options.amp, init_loss_scaling=1024)

    def step(self, batch: Mapping[str, Any], iteration: int) -> float:
        """Takes step number `iteration` (from 0) on {"img": N,3,H,W float32, "label": N,H,W int64}; returns its loss.

        What the network draws (dropout) depends on the seed and `iteration` alone.
        Raises UserError when the loss is not finite; the parameters are then those of the step before.
        """
        paddle, options, group = self._paddle, self._options, self._group
        paddle.seed(int(np.random.SeedSequence((options.seed, iteration)).generate_state(1)[0]))
        image, label = (paddle.to_tensor(batch[key]) for key in ("img", "label"))
        with ExitStack() as contexts:
            contexts.enter_context(paddle.amp.auto_cast(enable=options.amp, level="O1"))
            if group.size > 1:
                contexts.enter_context(synchronized(self._network, group))
            if options.device == "cpu":
                contexts.enter_context(biases_added_by_channel())
            logits = self._forward(image)
        heads = [head.astype("float32") if options.amp else head for head in logits]
        if not options.labels:
            loss = 0.0
        elif group.size == 1:
            loss = segmentation_loss(heads, label, self._losses)
        else:
            loss = local_loss(heads, label, self._losses, group)
        if options.distillation is not None:
            with paddle.no_grad(), paddle.amp.auto_cast(enable=options.amp, level="O1"):
                target = self._teacher(image)[0].astype("float32")
            # a mean over images, of which each process has equally many
            loss = loss + distillation_loss(heads[0], target, options.distillation) / group.size
        self._scaler.scale(loss).backward()
        value = float(group.all_gather(np.array(float(loss))).sum())
        if not np.isfinite(value):
            raise divergence(f"the loss is {value}", iteration + 1, options)
        group.sum_gradients(list(self._parameters.values()))
        self._optimizer.set_lr(learning_rate(iteration, options))
        with paddle.utils.unique_name.guard():  # so that accumulators are named after their parameter alone, see state
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.clear_grad(set_to_zero=False)
        return value

    def _forward(self, image: Any) -> Any:
        try:
            return self._network(image)
        except (UserError, EOFError, OSError):  # the latter of another process that is gone (synchronized batch norm)
            raise
        except Exception as error:  # the network's own code runs: anything may be raised
            size = f"{image.shape[3]} x {image.shape[2]}"
            raise UserError(
                f"{type(self._network).__name__} cannot be run on training images of {size}: {reason_of(error)};"
                " correct model.network, or give images of another size (dataset.size, dataset.train_transforms)"
            ) from error

    def state(self) -> dict[str, np.ndarray]:
        """Returns the accumulators of each parameter that has some, as "velocity/NAME", NAME of the state dict."""
        state = self._optimizer.state_dict()
        kinds = list(self._optimizer._accumulators)
        names = ((f"{kind}/{name}", f"{p.name}_{kind}_0") for name, p in self._parameters.items() for kind in kinds)
        return {ours: np.array(state[paddles].numpy()) for ours, paddles in names if paddles in state}

    def scaler_state(self) -> dict[str, Any]:
        """Returns the state of the gradient scaling as plain numbers; {} in full precision."""
        return {key: np.asarray(value).reshape(-1)[0].item() for key, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, np.ndarray], scaler_state: Mapping[str, Any]) -> None:
        """Continues from the state of an earlier optimizer of the same network; to be called before the first step."""
        accumulators = {}
        kinds = {key.partition("/")[0] for key in state}
        for name, parameter in self._parameters.items():
            for kind in kinds:
                # Paddle insists on all, also of a parameter that has had no gradient yet
                beta = getattr(self._optimizer, f"_{kind.removesuffix('_pow_acc')}", 0.0)
                shape, initial = ([1], beta) if kind.endswith("pow_acc") else (parameter.shape, 0.0)
                array = state.get(f"{kind}/{name}", np.full(shape, initial, np.float32))
                accumulators[f"{parameter.name}_{kind}_0"] = self._paddle.to_tensor(array)
        self._optimizer.set_state_dict(accumulators)
        if scaler_state:
            self._scaler.load_state_dict({**scaler_state, "scale": np.array([scaler_state["scale"]], np.float32)})


def divergence(fact: str, iteration: int, options: FitOptions) -> UserError:
    """Returns the error of a training whose numbers are not finite any more."""
    return UserError(
        f"training: {fact} at iteration {iteration}: give a lower {options.rate_key or 'learning_rate'} (it is"
        f" {options.rate_given or format(options.learning_rate, 'g')}), a longer warmup_iters, or check the labels"
    )
