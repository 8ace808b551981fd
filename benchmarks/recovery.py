"""What a pruned network has left, and what brings it back: mIoU by criterion, and against seconds of compute.

    uv run benchmarks/recovery.py criteria model=fast_scnn dataset=camvid dataset.root=DIR train.checkpoint=FILE
    uv run benchmarks/recovery.py recovery --ratios 0.5 --seeds 0,1,2 model=... (as above)
    uv run benchmarks/recovery.py networks --ratios 0.3 dataset.size=[96,96] train.iters=30 train.batch_size=2

`criteria` prunes by each criterion and solves for what is left, without training. `recovery` prunes once, solves for
what is left or not, and retrains for some iterations; its peer does as PaddleSlim's tutorial does: filters of the least
L1 norm go by measured sensitivity, and what is left is retrained. `networks` trains every network of conf/model for a
few iterations, and tells whether the error of each layer falls by reconstruction.

Every mIoU is of the exported file in ONNX Runtime on the whole validation split. All runs share one store: what is
equal is computed once, and the same command goes on where it was stopped. Seconds are processor time of reconstruct and
retrain, of this process and its children: a busy machine does not change them much.
"""
# ruff: noqa: E402

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir

from segslim.config import validate
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import Outcome, run
from segslim.pipeline.stage import read_json
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve

CRITERIA = ("obc", "fisher", "taylor", "l1_norm", "fpgm")
MODELS = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml") if file.stem != "exported")
ITERATIONS = (0, 25, 100, 300)
ALWAYS = ("engine=onnxruntime", "stages.last=[export,select,evaluate]", "compress.align=1")
PEER = ("compress.criterion=l1_norm", "compress.allocation=equal_loss")


@dataclass(frozen=True)
class Result:
    """seconds: of reconstruct and retrain."""

    miou: float
    seconds: float


class Clock:
    """A run listener that keeps the processor time of each step in a file, since a later run finds the step made; and
    tells on standard error what was made.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.begun = file, 0.0
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def started(self, step: Any) -> None:
        self.begun = sum(os.times()[:4])

    def finished(self, step: Any, artifact: Any) -> None:
        self.seconds[step.fingerprint] = round(sum(os.times()[:4]) - self.begun, 2)
        self.file.write_text(json.dumps(self.seconds))
        print(f"  {step.label}: {artifact.manifest['result']}", file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


class Runs:
    """Runs of the pipeline in this process, with one store."""

    def __init__(self, store: Path, given: list[str]) -> None:
        self.store, self.given = Store(store), given
        self.clock = Clock(self.store.root / "recovery.json")

    def result(self, stages: list[str], ratio: float, *typed: str) -> Result:
        outcomes = self.outcomes(stages, ratio, *typed)
        made = [o.step for o in outcomes if o.step.stage.name in ("reconstruct", "retrain")]
        seconds = sum(self.clock.seconds.get(step.fingerprint, float("nan")) for step in made)
        metrics = next(outcome.artifact.path for outcome in outcomes[::-1] if outcome.step.stage.kind == "metrics")
        return Result(read_json(metrics, "metrics")["miou"], seconds)

    def outcomes(self, stages: list[str], ratio: float, *typed: str) -> list[Outcome]:
        listed = f"compress.stages=[{','.join(stages)}]"
        overrides = ["compress=prune", *ALWAYS, listed, f"compress.ratio={ratio}", *typed, *self.given]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = validate(compose("config", overrides))
        return run(plan(resolve(config), STAGES), self.store, self.clock)


def criteria(runs: Runs, options: argparse.Namespace) -> Iterator[list[str]]:
    yield ["criterion", *(f"-{ratio:.0%}: pruned, reconstructed" for ratio in options.ratios)]
    dense = runs.result([], 0.5)
    yield ["dense", *([f"{dense.miou:.4f}"] * len(options.ratios))]
    for criterion in options.criteria:
        cells = []
        for ratio in options.ratios:
            typed = (f"compress.criterion={criterion}", "compress.allocation=global")
            pair = [runs.result(["score", "prune", *more], ratio, *typed).miou for more in ([], ["reconstruct"])]
            cells.append(", ".join(f"{miou:.4f}" for miou in pair))
        yield [criterion, *cells]


def recovery(runs: Runs, options: argparse.Namespace) -> Iterator[list[str]]:
    yield ["-FLOPs", "pruned by", "reconstructed", "iterations", "seconds", "mIoU", "seeds"]
    curves: dict[str, list[tuple[float, float]]] = {}
    ours = (f"compress.criterion={options.criteria[0]}", "compress.allocation=global")
    ways = (
        ("PaddleSlim's way", ["score", "analyze", "prune"], PEER),
        (options.criteria[0], ["score", "prune"], ours),
        (options.criteria[0], ["score", "prune", "reconstruct"], ours),
    )
    for ratio in options.ratios:
        for iterations in options.iterations:
            for name, stages, typed in ways:
                more = ["retrain", f"retrain.iters={iterations}"] if iterations else []
                seeds = options.seeds if iterations else options.seeds[:1]
                found = [runs.result([*stages, *more[:1]], ratio, *typed, *more[1:], f"seed={seed}") for seed in seeds]
                solved = "yes" if "reconstruct" in stages else "no"
                seconds, mious = mean(result.seconds for result in found), [result.miou for result in found]
                yield [f"{ratio:.0%}", name, solved, str(iterations), f"{seconds:.0f}", *spread(mious)]
                curve = f"-{ratio:.0%}, {name}" + (", reconstructed" if solved == "yes" else "")
                curves.setdefault(curve, []).append((seconds, mean(mious)))
    if options.plot:
        plot(curves, options.plot)


def plot(curves: dict[str, list[tuple[float, float]]], file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="seconds of processor time after pruning", ylabel="mIoU")
    axes.legend(frameon=False)
    figure.savefig(file)


def networks(runs: Runs, options: argparse.Namespace) -> Iterator[list[str]]:
    yield ["network", "layers", "left", "errors that rose", "median error before", "after", "seconds"]
    for name in options.models:
        typed = ("compress.criterion=l1_norm", "compress.allocation=uniform", "stages.last=[]", f"model={name}")
        made = runs.outcomes(["score", "prune", "reconstruct"], options.ratios[0], *typed)[-1]
        errors = Checkpoint.measured_in(made.artifact.path)["reconstruction"].values()
        solved = [(before, after) for before, after, left in errors if not left]
        counts = (len(errors), len(errors) - len(solved), sum(after > before for before, after, _ in errors))
        medians = (f"{median(column):.3f}" for column in zip(*solved, strict=True))
        yield [name, *map(str, counts), *medians, f"{runs.clock.seconds[made.step.fingerprint]:.0f}"]


def spread(values: list[float]) -> list[str]:
    deviation = f" +- {stdev(values):.4f}" if len(values) > 1 else ""
    return [f"{mean(values):.4f}{deviation}", str(len(values))]


def numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


TABLES = {"criteria": criteria, "recovery": recovery, "networks": networks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--ratios", type=numbers(float), default=[0.3, 0.5, 0.7])
    parser.add_argument("--criteria", type=numbers(str), default=list(CRITERIA), help="recovery takes the first")
    parser.add_argument("--models", type=numbers(str), default=MODELS, help="of conf/model, for networks")
    parser.add_argument("--iterations", type=numbers(int), default=list(ITERATIONS))
    parser.add_argument("--plot", type=Path, help="of recovery, an image file: mIoU against seconds")
    parser.add_argument("--seeds", type=numbers(int), default=[0], help="of retraining")
    parser.add_argument("--store", type=Path, default=Path(".segslim").absolute())
    parser.add_argument("overrides", nargs="*", help="given to every run")
    options = parser.parse_intermixed_args()
    rows = TABLES[options.table](Runs(options.store, options.overrides), options)
    for position, row in enumerate(rows):
        print(f"| {' | '.join(row)} |", flush=True)
        if position == 0:
            print("|---" * len(row) + "|", flush=True)


if __name__ == "__main__":
    main()
