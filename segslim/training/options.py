"""What a training is told, and the learning rate that follows from it."""

from dataclasses import dataclass

from segslim.training.distillation import Distillation


@dataclass(frozen=True)
class FitOptions:
    """SGD with momentum on `iters` batches; intervals are in iterations."""

    iters: int
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 4e-5
    power: float = 0.9
    warmup_iters: int = 0
    eval_interval: int = 500
    save_interval: int = 100
    seed: int = 0
    device: str = "cpu"
    amp: bool = False
    distillation: Distillation | None = None


def learning_rate(iteration: int, options: FitOptions) -> float:
    """The rate of the step after `iteration` steps: a linear warmup, then polynomial decay towards 0.

    The decay is (1 - t) ** power with t the share of the iterations after the warmup that are done, as in DeepLab
    (Chen et al., 2017, arXiv:1606.00915).
    """
    if iteration < options.warmup_iters:
        return options.learning_rate * (iteration + 1) / options.warmup_iters
    done = (iteration - options.warmup_iters) / (options.iters - options.warmup_iters)
    return options.learning_rate * (1 - done) ** options.power
