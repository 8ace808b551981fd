"""A network with batch norm, dropout and two heads that trains in milliseconds, and a training of it that dies."""

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segslim.networks.network import build_network
from segslim.paddle_compat import import_paddle
from segslim.training.loop import FitOptions, FitResult, Progress, fit
from segslim.training.losses import Distillation, build_losses

paddle = import_paddle()
CROSS_ENTROPY = {"_target_": "paddleseg.models.CrossEntropyLoss", "ignore_index": 255}
OPTIONS = FitOptions(iters=6, learning_rate=0.05, eval_interval=2, save_interval=3, seed=7)
DISTILLING = dataclasses.replace(OPTIONS, distillation=Distillation("channel_wise", weight=3.0, temperature=4.0))
AVERAGED = dataclasses.replace(OPTIONS, ema=0.9)
ADAM = dataclasses.replace(OPTIONS, optimizer="adam", learning_rate=0.01, evaluate_start=True)
FROZEN = dataclasses.replace(OPTIONS, freeze_batch_norm=True)


class ToyNetwork(paddle.nn.Layer):  # type: ignore[misc]
    """A convolution, and one more to each head's logits; the auxiliary head is there in training only."""

    def __init__(self, num_classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.stem = paddle.nn.Sequential(
            paddle.nn.Conv2D(3, width, 3, padding=1), paddle.nn.BatchNorm2D(width), paddle.nn.ReLU()
        )
        self.dropout = paddle.nn.Dropout2D(0.5)
        self.head = paddle.nn.Conv2D(width, num_classes, 1)
        self.auxiliary = paddle.nn.Conv2D(width, num_classes, 1)

    def forward(self, image: Any) -> list[Any]:
        features = self.stem(image)
        logits = [self.head(self.dropout(features))]
        return [*logits, self.auxiliary(features)] if self.training else logits


def toy_network(seed: int = 1, **arguments: int) -> Any:
    return build_network({"_target_": "tests.training.toy.ToyNetwork", **arguments}, seed=seed)


def toy_batch(iteration: int) -> dict[str, np.ndarray]:
    """Two images whose brightness is the class."""
    random = np.random.default_rng(iteration)
    label = random.integers(0, 2, (2, 16, 16))
    noise = random.normal(0, 0.3, (2, 3, 16, 16))
    return {"img": (label[:, None] + noise).astype(np.float32), "label": label}


def toy_batches(iteration: int) -> Iterator[dict[str, np.ndarray]]:
    while True:
        yield toy_batch(iteration)
        iteration += 1


def accuracy(network: Any) -> float:
    batch = toy_batch(1000)
    logits = network(paddle.to_tensor(batch["img"]))[0]
    return float((logits.numpy().argmax(axis=1) == batch["label"]).mean())


def state_of(network: Any) -> dict[str, bytes]:
    """Every bit of its parameters and statistics."""
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def toy_fit(scratch: Path, network: Any, options: FitOptions = OPTIONS, **given: Any) -> FitResult:
    losses = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0, 0.4]})
    plain = {"batches_from": toy_batches, "losses": losses, "evaluate": accuracy, "progress": lambda at: None}
    return fit(network, options=options, scratch=scratch, **{**plain, **given})


def die(at: Progress) -> None:
    if at.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":  # scratch folder: trains, and is killed in iteration 5
    toy_fit(Path(sys.argv[1]), toy_network(), progress=die)
