"""Which channels to remove: criteria and allocations side by side, each retrained as long as the others.

    uv run benchmarks/criteria.py --root ../shared/data/camvid --models fast_scnn,bisenetv2 > criteria.md
    uv run benchmarks/criteria.py --dataset synthetic_fundus --iters 20 --retrain-iters 10 --ratios 0.3   # a first try

Each line of the table is one run of run.py, all with one store: a network is trained once, and the same command goes on
where it was stopped. Latency means something on a quiet machine only. What stands after `--` is given to every run:
    -- dataset.size=[256,192] train.batch_size=8
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

STRATEGIES = {
    "l1_norm, equal_loss": ["compress=prune", "compress.criterion=l1_norm", "compress.allocation=equal_loss"],
    "taylor, global": ["compress=prune_taylor"],
    "l1_norm, uniform": ["compress=prune_uniform", "compress.criterion=l1_norm"],
    "random, uniform": ["compress=prune_uniform", "compress.criterion=random"],
}
HEAD = ("model", "ratio", "strategy", "mIoU", "change", "FLOPs", "change", "latency", "change")


def report_of(folder: Path, overrides: list[str]) -> dict[str, Any] | None:
    """The report of one run, whose screen goes to standard error; None where it fails, and says why there."""
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"hydra.run.dir={folder}"]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    return json.loads((folder / "report.json").read_text(encoding="utf-8")) if done.returncode == 0 else None


def rows(options: argparse.Namespace) -> Iterator[list[str]]:
    """One for each dense network, then one for each of its prunings, as soon as it is known."""
    for model in options.models:
        given = [f"model={model}", f"dataset={options.dataset}", f"store={options.store}", *options.overrides]
        if options.root:
            given.append(f"dataset.root={options.root.absolute()}")
        for key, iters in (("train", options.iters), ("retrain", options.retrain_iters)):
            given += [f"{key}.iters={iters}"] if iters else []
        dense_shown = False
        for ratio in options.ratios:
            for name in options.strategies:
                folder = options.out / f"{model}-{ratio}-{name.replace(', ', '-')}"
                report = report_of(folder, [*given, *STRATEGIES[name], f"compress.ratio={ratio}"])
                if report is None:
                    yield [model, ratio, name, "failed", *[""] * 5]
                    continue
                if not dense_shown:
                    yield [model, "0", "dense", *numbers(report, "baseline")]
                    dense_shown = True
                yield [model, ratio, name, *numbers(report, "compressed")]


def numbers(report: dict[str, Any], lane: str) -> list[str]:
    """mIoU, FLOPs and latency of one side of a report, each with its change where it is the compressed one."""
    measured, change = report[lane], report["change"]
    shown = {
        "miou": (f"{measured['miou']:.4f}", "{:+.4f}"),
        "flops": (f"{measured['flops'] / 1e6:.1f} M", "{:+.1%}"),
        "latency": (f"{measured['latency_ms']['mean']:.2f} ms", "{:+.1%}"),
    }
    words = [
        (value, style.format(change[key]) if lane == "compressed" else "") for key, (value, style) in shown.items()
    ]
    return [cell for pair in words for cell in pair]


def line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="of the data set, where it has one")
    parser.add_argument("--dataset", default="camvid", help="one of conf/dataset/")
    parser.add_argument("--models", type=lambda text: text.split(","), default=["fast_scnn"])
    parser.add_argument("--ratios", type=lambda text: text.split(","), default=["0.2", "0.3", "0.5"])
    parser.add_argument("--strategies", type=lambda text: text.split(";"), default=list(STRATEGIES), help="A;B")
    parser.add_argument("--iters", type=int, help="train.iters, the data set's by default")
    parser.add_argument("--retrain-iters", type=int, help="retrain.iters, the data set's by default")
    parser.add_argument("--store", type=Path, default=Path(".segslim").absolute())
    parser.add_argument("--out", type=Path, default=Path("outputs/criteria").absolute(), help="reports and logs")
    parser.add_argument("overrides", nargs="*", help="given to every run")
    options = parser.parse_args()
    if unknown := set(options.strategies) - STRATEGIES.keys():
        parser.error(f"--strategies {unknown.pop()!r}: should be some of {'; '.join(STRATEGIES)}")
    print(line(HEAD), line(["---"] * 3 + ["---:"] * 6), sep="\n")
    for row in rows(options):
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
