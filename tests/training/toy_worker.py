"""A worker of a training of the toy network; it dies where its job says so."""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segslim.training.losses import Distillation, build_losses
from segslim.training.process_group import ALONE, ProcessGroup
from segslim.training.processes import Send, run_processes, run_worker
from tests.training.toy import CROSS_ENTROPY, OPTIONS, toy_batch, toy_fit, toy_network

COMMAND = [sys.executable, "-m", "tests.training.toy_worker"]
OHEM = {"_target_": "paddleseg.models.OhemCrossEntropyLoss", "min_kept": 20}
LOSSES = {"mean": [CROSS_ENTROPY], "others": [OHEM, {"_target_": "paddleseg.models.LovaszSoftmaxLoss"}]}
DISTILLING = {"distillation": {"kind": "channel_wise", "weight": 3.0, "temperature": 4.0}}


def batches(group: ProcessGroup) -> Callable[[int], Any]:
    """This process's image of batches of two, of which the first is half ignored."""

    def from_iteration(iteration: int) -> Any:
        while True:
            batch = toy_batch(iteration)
            batch["label"][0, :8] = 255
            yield {key: np.array_split(array, group.size)[group.rank] for key, array in batch.items()}
            iteration += 1

    return from_iteration


def work(job: Mapping[str, Any], group: ProcessGroup = ALONE, send: Send = lambda kind, content: None) -> Any:
    """Trains and writes weights.npz; returns the result as plain values."""
    options = {**job.get("options", {})}
    if "distillation" in options:
        options["distillation"] = Distillation(**options["distillation"])

    def after_each(at: Any) -> None:
        send("progress", at.iteration)
        if job.get("end") == [group.rank, at.iteration]:
            os.kill(os.getpid(), signal.SIGKILL)

    network = toy_network()
    result = toy_fit(
        Path(job["folder"]),
        network,
        dataclasses.replace(OPTIONS, **options),
        losses=build_losses({"types": LOSSES[job.get("losses", "mean")], "coef": [1.0, 0.4]}),
        batches_from=batches(group),
        progress=after_each,
        teacher=toy_network(seed=3) if "distillation" in options else None,
        group=group,
    )
    if group.leads:
        np.savez(Path(job["folder"]) / "weights.npz", **{k: v.numpy() for k, v in network.state_dict().items()})
    return dataclasses.asdict(result)


def together(
    folder: Path, size: int = 2, on_message: Callable[[str, Any], None] = lambda kind, content: None, **job: Any
):
    return run_processes(COMMAND, size, {"folder": str(folder), **job}, "cpu", on_message)


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "weights.npz") as file:
        return {name: file[name] for name in file.files}


if __name__ == "__main__":
    run_worker(work)
