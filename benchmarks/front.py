"""uv run benchmarks/front.py [--points 16] [--cold 4] [--ratios 0.4,0.6] OVERRIDES...

What compress=front takes and finds, against the same points one by one, each in a store of its own, and against a sweep
of `prune` with 100 iterations of retraining. For each: seconds, seconds of processor time of all its processes (which
other work on the machine does not change), networks, and the hypervolume: the share of the rectangle of 0.1 of mIoU
by all of the dense network's FLOPs (and of its latency) that its networks are better than.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORST = 0.1  # loss of mIoU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--cold", type=int, default=4, help="points that are made again, each from nothing")
    parser.add_argument("--ratios", default="0.4,0.6,0.2,0.8", help="of the sweep, in this order; '' for none")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    typed = [*options.overrides, "compress=front", f"compress.front.points={options.points}"]
    report, *took = run(typed, folder / "front")
    points = report["front"]["points"]
    found = [
        (figures["flops_ratio"]["value"], figures["latency_ratio"]["value"], figures["miou_loss"]["value"])
        for figures in (point["figures"] for point in points)
    ]
    show("front", len(points) - 1, took, found)
    chosen = next(point for point in points if point["name"] == report["front"]["chosen"])
    print(f"  chosen: {chosen['name']}, latency ratio {chosen['figures']['latency_ratio']['value']:.3f}", flush=True)

    # one by one: some of them, spread evenly, stand for all
    compressed = points[1:]
    sample = [compressed[i * len(compressed) // options.cold] for i in range(options.cold)]
    total = [0.0, 0.0]
    for number, point in enumerate(sample):
        _, *took = run(point["overrides"], folder / f"cold-{number}")
        total = [sum(pair) for pair in zip(total, took, strict=True)]
        print(f"  {point['name']} alone: {took[0]:.0f} s, {took[1]:.0f} s of processor time", flush=True)
    if sample:
        show("one by one, cold", len(compressed), [value * len(compressed) / len(sample) for value in total], found)

    # a sweep, whose jobs share a store
    made, total = [(1.0, 1.0, 0.0)], [0.0, 0.0]
    common = [text for text in options.overrides if not text.startswith("compress.")]  # those are the front's
    for ratio in filter(None, options.ratios.split(",")):
        own = ["compress=prune", f"compress.ratio={ratio}", "retrain.iters=100"]
        report, *took = run([*common, *own], folder / "sweep")
        change = report["change"]
        made.append((1 + change["flops"], 1 + change["latency"], -change["miou"]))
        total = [sum(pair) for pair in zip(total, took, strict=True)]
        print(f"  prune {ratio}: mIoU {change['miou']:+.4f}, {took[1]:.0f} s of processor time", flush=True)
        show("sweep of prune", len(made) - 1, total, made)


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


def show(name: str, count: int, took: list[float], found: list[tuple[float, float, float]]) -> None:
    volumes = [hypervolume([(point[axis], point[2]) for point in found]) for axis in (0, 1)]
    print(
        f"{name}: {count} networks, {took[0]:.0f} s, {took[1]:.0f} s of processor time; hypervolume by FLOPs "
        f"{volumes[0]:.4f}, by latency {volumes[1]:.4f}",
        flush=True,
    )


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
