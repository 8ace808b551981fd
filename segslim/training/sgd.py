"""One step of stochastic gradient descent with momentum, and the momentum as arrays."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from segslim.errors import UserError
from segslim.paddle_compat import biases_added_by_channel, import_paddle
from segslim.training.distillation import distillation_loss
from segslim.training.losses import Losses, segmentation_loss
from segslim.training.options import FitOptions, learning_rate
from segslim.training.parallel.group import ALONE, Group
from segslim.training.parallel.loss import part_of_loss
from segslim.training.parallel.whole_batch import of_the_whole_batch


class Sgd:
    """Updates a network in place, batch by batch. A new one starts with no momentum, whatever came before.

    The processes of a `group` each give it their share of a batch, and take the same step.
    """

    def __init__(
        self, network: Any, losses: Losses, options: FitOptions, teacher: Any = None, group: Group = ALONE
    ) -> None:
        self._paddle = import_paddle()
        self._network = network
        self._losses = losses
        self._teacher = teacher
        self._group = group
        self._options = options
        self._parameters = {
            name: tensor for name, tensor in network.named_parameters() if not tensor.stop_gradient and tensor.trainable
        }
        self._optimizer = self._paddle.optimizer.Momentum(
            learning_rate=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            parameters=list(self._parameters.values()),
        )
        # fp16 gradients underflow: they are scaled, and steps whose gradients overflow are left out
        self._scaler = self._paddle.amp.GradScaler(enable=options.amp, init_loss_scaling=1024)

    def step(self, batch: Mapping[str, Any], iteration: int) -> float:
        """Takes step number `iteration` (from 0) on {"img": N,3,H,W float32, "label": N,H,W int64}; returns its loss.

        What is drawn in the network (dropout) depends on the seed and `iteration` alone.
        Raises UserError when the loss is no number; the parameters are then those of the step before.
        """
        self._paddle.seed(_draw(self._options.seed, iteration))
        image, label = (self._paddle.to_tensor(batch[key]) for key in ("img", "label"))
        with self._precision(), self._together(), self._sums():
            logits = self._network(image)
        heads = [head.astype("float32") if self._options.amp else head for head in logits]
        loss = self._loss(heads, image, label)
        self._scaler.scale(loss).backward()
        value = float(self._group.gathered(np.array(float(loss))).sum())
        if not np.isfinite(value):
            raise diverged(f"the loss is {value}", iteration + 1, self._options)
        self._group.sum_gradients(list(self._parameters.values()))
        self._optimizer.set_lr(learning_rate(iteration, self._options))
        with self._paddle.utils.unique_name.guard():  # names the momentum of a parameter after it, and nothing else
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.clear_grad(set_to_zero=False)
        return value

    def velocity(self) -> dict[str, np.ndarray]:
        """The momentum of each parameter that has one, by the parameter's name in the state dict."""
        state = self._optimizer.state_dict()
        return {
            name: np.array(state[_velocity_name(tensor)].numpy())
            for name, tensor in self._parameters.items()
            if _velocity_name(tensor) in state
        }

    def scaler_state(self) -> dict[str, Any]:
        """What mixed precision has learned of the gradients' scale, as plain numbers; empty in full precision."""
        return {key: np.asarray(value).reshape(-1)[0].item() for key, value in self._scaler.state_dict().items()}

    def restore(self, velocity: Mapping[str, np.ndarray], scaler_state: Mapping[str, Any]) -> None:
        """Takes up the momentum and scale of an earlier Sgd of the same network; to be called before the first step."""
        self._optimizer.set_state_dict(
            {
                _velocity_name(tensor): self._paddle.to_tensor(velocity.get(name, np.zeros(tensor.shape, np.float32)))
                for name, tensor in self._parameters.items()
            }
        )
        if scaler_state:
            self._scaler.load_state_dict({**scaler_state, "scale": np.array([scaler_state["scale"]], np.float32)})

    def _loss(self, heads: list[Any], image: Any, label: Any) -> Any:
        if self._group.size == 1:
            loss = segmentation_loss(heads, label, self._losses)
        else:
            loss = part_of_loss(heads, label, self._losses, self._group)
        if self._options.distillation is not None:
            learned = distillation_loss(heads[0], self._taught(image), self._options.distillation)
            loss = loss + learned / self._group.size  # a mean over the images, of which each process has as many
        return loss

    def _together(self) -> AbstractContextManager[Any]:
        return of_the_whole_batch(self._network, self._group) if self._group.size > 1 else nullcontext()

    def _sums(self) -> AbstractContextManager[Any]:
        return biases_added_by_channel() if self._options.device == "cpu" else nullcontext()

    def _taught(self, image: Any) -> Any:
        with self._paddle.no_grad(), self._precision():
            return self._teacher(image)[0].astype("float32")

    def _precision(self) -> AbstractContextManager[Any]:
        return self._paddle.amp.auto_cast(level="O1") if self._options.amp else nullcontext()


def diverged(fact: str, iteration: int, options: FitOptions) -> UserError:
    """What to tell of a training whose numbers are none any more."""
    return UserError(
        f"training: {fact} at iteration {iteration}: give a lower learning_rate (it is {options.learning_rate:g}),"
        " a longer warmup_iters, or check the labels"
    )


def _velocity_name(parameter: Any) -> str:
    return f"{parameter.name}_velocity_0"


def _draw(seed: int, iteration: int) -> int:
    return int(np.random.SeedSequence((seed, iteration)).generate_state(1)[0])
