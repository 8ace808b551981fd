"""A training step of a network: segslim on several processes beside PaddleSeg's on one, in turns.

    uv run benchmarks/training.py --model bisenetv2,fast_scnn --root ../shared/data/camvid

DIR of --root holds CamVid in PaddleSeg's format: train_list.txt, val_list.txt, and the images that they name. Both
take the same network, losses, batches and loader. PaddleSeg's own loop does not run on Paddle 2.6 and 3.3 (it takes
`l[0]` of a loss without dimensions), so its step is written out here: forward, losses, backward, optimizer, schedule.
"""
# ruff: noqa: E402

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from segslim.config import Config, validate
from segslim.training.process_group import ProcessGroup
from segslim.training.processes import Send, run_processes, run_worker

WARMUP = 2  # steps that are not counted: caches fill, loaders start
Step = Callable[[Mapping[str, Any], int], float]


def configure(job: Mapping[str, Any]) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = ["dataset=camvid", f"dataset.root='{job['root']}'"]
        return validate(compose("config", [f"model={job['model']}", *data, f"train.batch_size={job['batch']}"]))


def paddleseg_step(network: Any, config: Config) -> Step:
    """paddleseg.core.train: `loss_computation` and the body of its loop, with a sum instead of `l[0]`."""
    import paddle

    from segslim.paddle_compat import arithmetic_of_integers_and_floats
    from segslim.training.losses import build_losses

    losses = build_losses(config.model.loss)
    schedule = paddle.optimizer.lr.PolynomialDecay(config.train.learning_rate, config.train.iters, end_lr=0, power=0.9)
    decay = config.train.weight_decay
    optimizer = paddle.optimizer.Momentum(schedule, parameters=network.parameters(), weight_decay=decay)

    def step(batch: Mapping[str, Any], iteration: int) -> float:
        logits, labels = network(batch["img"]), batch["label"].astype("int64")
        with arithmetic_of_integers_and_floats():
            parts = [c * loss(head, labels) for head, loss, c in zip(logits, losses.types, losses.coef, strict=True)]
        loss = sum(parts[1:], parts[0])
        loss.backward()
        optimizer.step()
        schedule.step()
        network.clear_gradients()
        return float(loss)

    return step


def segslim_step(network: Any, config: Config, group: ProcessGroup) -> Step:
    from segslim.paddle_compat import keep_freed_memory
    from segslim.training.losses import build_losses
    from segslim.training.optimizer import FitOptions, Optimizer

    options = FitOptions(config.train.iters, config.train.learning_rate)
    keep_freed_memory()  # as `fit` does
    return Optimizer(network, build_losses(config.model.loss), options, group=group).step


def work(job: Mapping[str, Any], group: ProcessGroup, send: Send) -> dict[str, Any]:
    """Median seconds of a step, the wait for its batch included, and the loss of the last."""
    from segslim.data.loading import training_loader
    from segslim.data.source import Dataset
    from segslim.networks.network import build_network
    from segslim.stages.shared.images import listed_pairs, transforms

    config = configure(job)
    network = build_network(config.model.network, seed=0)
    network.train()
    step = paddleseg_step(network, config) if job["peer"] else segslim_step(network, config, group)
    loader = training_loader(
        listed_pairs(config, Dataset(Path()), "train"),
        transforms(config, "train"),
        batch_size=job["batch"],
        seed=0,
        start_iter=0,
        iters=WARMUP + job["steps"],
        num_workers=-(-2 // group.size),
        share=(group.rank, group.size),
    )
    seconds, loss, begun = [], 0.0, time.perf_counter()
    for iteration, batch in enumerate(loader):
        loss = step(batch, iteration)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return {"seconds": median(seconds[WARMUP:]), "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path)
    parser.add_argument("--model", default="bisenetv2,fast_scnn", help="of conf/model/, separated by commas")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    command = [sys.executable, str(Path(__file__).resolve())]
    shown = Table("model", "PaddleSeg, s", f"segslim on {options.processes}, s", "ratio", "losses of the last step")
    for model in options.model.split(","):
        job = {"model": model, "root": str(options.root.resolve()), "batch": options.batch, "steps": options.steps}
        peer, ours = (
            run_processes(command, size, {**job, "peer": size == 1}, "cpu", lambda kind, content: None)
            for size in (1, options.processes)
        )
        times = (f"{run['seconds']:.3f}" for run in (peer, ours))
        losses = f"{peer['loss']:.4f}, {ours['loss']:.4f}"
        shown.add_row(model, *times, f"{ours['seconds'] / peer['seconds']:.2f}", losses)
    Console(highlight=False, width=110).print(shown)


if __name__ == "__main__":
    run_worker(work) if sys.argv[1:] and sys.argv[1].isdigit() else main()
