"""The sensitivity analysis of a network: segslim beside PaddleSlim's L1NormFilterPruner, in one process.

    UV_PROJECT_ENVIRONMENT=.venv-paddle2 uv run --no-default-groups --group paddle2 benchmarks/sensitivity.py --root DIR

DIR holds train_list.txt and val_list.txt, and the images and labels that they name: CamVid in PaddleSeg's format. Give
trained weights with --checkpoint. A first try, in under a minute: --ratios 0.3,0.6 --images 4 --groups 3

Both begin with the network and the images in memory, and end with the loss of mIoU at each ratio of each group that
both know. PaddleSlim prunes the network and evaluates it as PaddleSeg does: in dygraph, one image at a time. The
predictions of both go through one resize and confusion matrix.
"""
# ruff: noqa: E402

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.paddleslim_pruner import RATIOS, PaddleSlimPruner
from segslim.channels import ChannelGraph, Sensitivity, prune
from segslim.channels.importance import score as score_channels
from segslim.channels.sensitivity import Trial, trials
from segslim.config import Config, validate
from segslim.evaluation.metrics import evaluate
from segslim.networks.network import build_network, set_weights, weights_of
from segslim.networks.weight_files import read_weights
from segslim.paddle_compat import import_paddle
from segslim.stages.analyze import sensitivity_of
from segslim.stages.shared.images import batches, evenly, source
from segslim.stages.shared.sessions import write_class_ids_graph

paddle = import_paddle()

REAL_PRUNINGS, TOLERANCE = 5, 1e-3  # of mIoU, between masked and really pruned


class Subject:
    """What both analyse: the network, the images, the ratios, and the names of the groups that both know."""

    def __init__(self, config: Config, options: argparse.Namespace):
        self.config, self.ratios = config, options.ratios
        self.input_shape = (1, 3, *reversed(config.dataset.size))
        pairs = source(config).pairs(Path(), "val")
        self.images = list(batches(config, [pairs[i] for i in evenly(len(pairs), options.images)]))
        self.network = build_network(config.model.network, seed=config.seed)
        if options.checkpoint:
            set_weights(self.network, read_weights(Path(options.checkpoint)), options.checkpoint)
        else:
            calibrate(self.network, self.images)
        self.network.eval()
        self.graph = ChannelGraph.trace(self.network, self.input_shape)
        self.peer = PaddleSlimPruner(self.network, self.input_shape, self.graph)
        self.groups = list(self.peer.collections)[: options.groups]
        self.scores = score_channels("l1_norm", self.graph, weights_of(self.network))
        planned = trials(self.graph, self.scores, self.ratios)
        self.trials = [trial for trial in planned if trial.group in self.groups]

    def miou(self, network: Any) -> float:
        """In dygraph, as PaddleSeg evaluates, but for the confusion matrix: PaddleSeg's fails on Paddle 2.6.2."""

        def predict(image: np.ndarray) -> np.ndarray:
            return paddle.argmax(network(paddle.to_tensor(image))[0], axis=1, dtype="int32").numpy()

        with paddle.no_grad():
            dataset = self.config.dataset
            return evaluate(predict, self.images, dataset.num_classes, dataset.ignore_index).miou


def calibrate(network: Any, images: list[tuple[np.ndarray, Any]]) -> None:
    """Batch norm's statistics from the images: with the initial ones, signals die before the last layer."""
    momenta = {layer: layer._momentum for layer in network.sublayers() if hasattr(layer, "_momentum")}
    for layer in momenta:
        layer._momentum = 0.0
    with paddle.no_grad():
        network(paddle.to_tensor(np.concatenate([image for image, _ in images])))
    for layer, momentum in momenta.items():
        layer._momentum = momentum


def by_segslim(subject: Subject, scratch: Path) -> Sensitivity:
    """The stage `analyze`, for the groups that both know."""
    graph = ChannelGraph.trace(subject.network, subject.input_shape)
    graph.groups = [group for group in graph.groups if group.name in subject.groups]
    write_class_ids_graph(subject.network, subject.config, scratch / "network.onnx")
    return sensitivity_of(scratch, graph, subject.scores, subject.config, subject.images)


def by_paddleslim(subject: Subject, scratch: Path) -> Sensitivity:
    pruner = PaddleSlimPruner(subject.network, subject.input_shape, subject.graph)
    return pruner.sensitivity(lambda: subject.miou(subject.network), subject.groups, subject.ratios, scratch)


@dataclass(frozen=True)
class Run:
    """An analysis and the seconds it took; `cpu` adds up threads and child processes, and minds other work less."""

    found: Sensitivity
    wall: float
    cpu: float

    @classmethod
    def of(cls, analyse: Callable[[Subject, Path], Sensitivity], subject: Subject) -> "Run":
        with tempfile.TemporaryDirectory() as scratch:
            wall, cpu = time.perf_counter(), sum(os.times()[:4])
            found = analyse(subject, Path(scratch))
            return cls(found, time.perf_counter() - wall, sum(os.times()[:4]) - cpu)

    def miou(self, trial: Trial) -> float:
        return self.found.baseline - self.found.losses[trial.group][trial.share]


def table(ours: Run, theirs: Run, subject: Subject) -> Table:
    shown = Table("method", "groups", "evaluations", "s/evaluation", "wall s", "CPU s", "wall ratio", "CPU ratio")
    known = (len(subject.graph.prunable_groups), subject.peer.found)
    for method, run, groups in zip(("segslim", "PaddleSlim"), (ours, theirs), known, strict=True):
        count = sum(map(len, run.found.losses.values())) + 1
        numbers = (run.wall, run.cpu, run.wall / ours.wall, run.cpu / ours.cpu)
        counts = (f"{len(subject.groups)} of {groups}", f"{count}", f"{run.wall / count:.3f}")
        shown.add_row(method, *counts, *(f"{number:.1f}" for number in numbers))
    return shown


def agreement(ours: Run, theirs: Run, subject: Subject) -> str:
    """Where several layers make a group, PaddleSlim scores one of them and segslim all: they may remove others."""
    same = [t for t in subject.trials if np.array_equal(subject.peer.removed(t.group, t.share), t.removed[t.group])]
    largest = max((abs(ours.miou(trial) - theirs.miou(trial)) for trial in same), default=float("nan"))
    return (
        f"unpruned: mIoU {ours.found.baseline:.4f} and {theirs.found.baseline:.4f}\n"
        f"both removed the same filters in {len(same)} of {len(subject.trials)}: mIoU differs by at most {largest:.1e}"
    )


def from_truth(ours: Run, subject: Subject) -> list[float]:
    """The difference in mIoU between the masked network and one that is really pruned, in a few trials."""
    differences, sizes = [], {group.name: group.size for group in subject.graph.groups}
    for trial in random.Random(0).sample(subject.trials, min(REAL_PRUNINGS, len(subject.trials))):
        network = build_network(subject.config.model.network)
        set_weights(network, weights_of(subject.network), "the network")
        network.eval()
        kept = np.setdiff1d(np.arange(sizes[trial.group]), trial.removed[trial.group])
        prune(network, subject.graph, {trial.group: kept})
        differences.append(abs(subject.miou(network) - ours.miou(trial)))
    return differences


def tenths(text: str) -> list[float]:
    ratios = [float(ratio) for ratio in text.split(",")]
    if not set(ratios) <= set(RATIOS):
        raise argparse.ArgumentTypeError(f"{text}: should be some of {RATIOS}, which PaddleSlim measures")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder or .pdparams file; default: random weights")
    parser.add_argument("--model", default="fast_scnn", help="one of conf/model/")
    parser.add_argument("--images", type=int, default=20, help="of the validation list, evenly spread")
    parser.add_argument("--ratios", type=tenths, default=RATIOS)
    parser.add_argument("--groups", type=int, help="only the first so many of those that both know")
    options, console = parser.parse_args(), Console(highlight=False, width=110)
    logging.disable(logging.WARNING)  # PaddleSlim logs every pruning
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        dataset = ["dataset=camvid", f"dataset.root='{options.root}'"]
        analysis = ["compress=prune", f"compress.analysis.ratios={options.ratios}"]
        config = validate(compose("config", [f"model={options.model}", *analysis, *dataset]))
    subject = Subject(config, options)
    weights = options.checkpoint or "random weights with calibrated batch norm: mIoU means little"
    console.print(f"{options.model}, {len(subject.images)} images of {config.dataset.size}; {weights}")
    ours, theirs = Run.of(by_segslim, subject), Run.of(by_paddleslim, subject)
    console.print(table(ours, theirs, subject), agreement(ours, theirs, subject), sep="\n")
    differences = from_truth(ours, subject)
    console.print(f"really pruned {len(differences)}: mIoU differs from segslim's by at most {max(differences):.1e}")
    sys.exit(max(differences) > TOLERANCE)


if __name__ == "__main__":
    main()
