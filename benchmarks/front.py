"""uv run benchmarks/front.py [--points 16] [--cold 4] [--ratios 0.4,0.6] [--keep FOLDER] OVERRIDES...

What compress=front takes and finds, against the same points one by one, each in a store of its own, and against a sweep
of `prune` with 100 iterations of retraining. For each: seconds, seconds of processor time of all its processes (which
other work on the machine does not change), networks, and the hypervolume: the share of the rectangle of 0.1 of mIoU
by all of the dense network's FLOPs (and of its latency) that its networks are better than. Of the sweep there are two
lines: at as much processor time as the front took, and with all its networks.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORST = 0.1  # loss of mIoU
EVENLY = "0.4,0.6,0.2,0.8,0.5,0.3,0.7,0.1,0.45,0.65,0.25,0.75,0.55,0.35,0.15,0.05"  # in any number


@dataclass
class Made:
    """Networks as (FLOPs, latency, loss of mIoU), of the dense network's, and the seconds that they took."""

    networks: list[tuple[float, float, float]]
    seconds: float = 0.0
    processor: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--cold", type=int, default=4, help="points that are made again, each from nothing")
    parser.add_argument("--ratios", default=EVENLY, help="of the sweep, in this order; '' for none")
    parser.add_argument("--keep", type=Path, help="an empty folder for stores and reports; otherwise they are deleted")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        compare(options, options.keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    typed = [*options.overrides, "compress=front", f"compress.front.points={options.points}"]
    report, *took = run(typed, folder / "front")
    points = report["front"]["points"]
    figures = [point["figures"] for point in points]
    front = Made(
        [tuple(f[key]["value"] for key in ("flops_ratio", "latency_ratio", "miou_loss")) for f in figures], *took
    )
    chosen = next(point for point in points if point["name"] == report["front"]["chosen"])
    missed = f", misses {report['front']['missed']}" if report["front"]["missed"] else ""
    print(
        f"  chosen: {chosen['name']}, latency ratio {chosen['figures']['latency_ratio']['value']:.3f}{missed}",
        flush=True,
    )
    table = [("front", front)]

    # one by one: some of them, spread evenly, stand for all
    compressed = points[1:]
    sample = [compressed[i * len(compressed) // options.cold] for i in range(options.cold)]
    cold = Made(front.networks)
    for number, point in enumerate(sample):
        _, seconds, processor = run(point["overrides"], folder / f"cold-{number}")
        cold.seconds += seconds * len(compressed) / len(sample)
        cold.processor += processor * len(compressed) / len(sample)
        print(f"  {point['name']} alone: {seconds:.0f} s, {processor:.0f} s of processor time", flush=True)
    if sample:
        table.append(("one by one, cold", cold))

    # a sweep, whose jobs share a store
    sweep = Made([(1.0, 1.0, 0.0)])
    common = [text for text in options.overrides if not text.startswith("compress.")]  # those are the front's
    for ratio in filter(None, options.ratios.split(",")):
        own = ["compress=prune", f"compress.ratio={ratio}", "retrain.iters=100"]
        report, seconds, processor = run([*common, *own], folder / "sweep")
        change = report["change"]
        network = (1 + change["flops"], 1 + change["latency"], -change["miou"])
        if sweep.processor <= front.processor < sweep.processor + processor:
            table.append(("sweep of prune, at equal time", sweep))
        sweep = Made([*sweep.networks, network], sweep.seconds + seconds, sweep.processor + processor)
        print(f"  prune {ratio}: mIoU {change['miou']:+.4f}, {processor:.0f} s of processor time", flush=True)
    if len(sweep.networks) > 1:
        table.append(("sweep of prune", sweep))
    show(table)


def run(overrides: list[str], store: Path) -> tuple[dict, float, float]:
    """The report, the seconds, and the seconds of processor time of one command."""
    output = Path(tempfile.mkdtemp(dir=store.parent))
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"store={store}", f"hydra.run.dir={output}"]
    began, used = time.perf_counter(), processor_time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return report, time.perf_counter() - began, processor_time() - used


def processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(table: list[tuple[str, Made]]) -> None:
    print(
        "\n| | networks | seconds | of processor time | hypervolume by FLOPs | by latency |\n|---|---|---|---|---|---|"
    )
    for name, made in table:
        volumes = [hypervolume([(network[axis], network[2]) for network in made.networks]) for axis in (0, 1)]
        cells = [
            name,
            len(made.networks) - 1,
            f"{made.seconds:.0f}",
            f"{made.processor:.0f}",
            *(f"{v:.4f}" for v in volumes),
        ]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def hypervolume(points: list[tuple[float, float]]) -> float:
    """The share of (0, 0) to (1, WORST) that points (ratio, loss) are better than."""
    area, worst = 0.0, WORST
    for ratio, loss in sorted(points):
        if ratio < 1 and loss < worst:
            area += (1 - ratio) * (worst - max(loss, 0.0))
            worst = max(loss, 0.0)
    return area / WORST


if __name__ == "__main__":
    main()
