"""What a sweep over four ratios saves against four separate cold runs, and what it costs when all is cached.

    uv run benchmarks/sweep.py                                           # the default data set and network
    uv run benchmarks/sweep.py dataset=camvid dataset.root=../shared/data/camvid train.iters=400

Prints the CPU time of each (user and system, of all processes), and which stages each job of the sweep found in the
store. Further words go to every run.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RATIOS = ("0.1", "0.2", "0.3", "0.5")


@dataclass(frozen=True)
class Cost:
    cpu: float  # seconds
    wall: float


def cost(words: list[str], folder: Path) -> Cost:
    """Runs `run.py WORDS` in `folder`, where its store will be."""
    folder.mkdir(exist_ok=True)
    before, begun = _children(), time.perf_counter()
    subprocess.run([sys.executable, ROOT / "run.py", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return Cost(_children() - before, time.perf_counter() - begun)


def shared(folder: Path) -> list[tuple[str, list[str], list[str]]]:
    """Of each job of the last sweep: its ratio, the stages that it made, and those that it found."""
    sweep = sorted((folder / "multirun").glob("*/*/"))[-1]
    reports = [json.loads((sweep / str(number) / "report.json").read_text()) for number in range(len(RATIOS))]
    return [
        (ratio, *([s["name"] for s in report["stages"] if s["cached"] == cached] for cached in (False, True)))
        for ratio, report in zip(RATIOS, reports, strict=True)
    ]


def main(words: list[str]) -> None:
    options = ["compress=prune", *map(_absolute, words)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = [cost([*options, f"compress.ratio={ratio}"], folder / f"cold-{ratio}") for ratio in RATIOS]
        ratios = f"compress.ratio={','.join(RATIOS)}"
        swept = cost(["-m", *options, ratios], folder / "sweep")
        jobs = shared(folder / "sweep")
        cached = cost(["-m", *options, ratios], folder / "sweep")
    separate = sum(run.cpu for run in cold)
    print(f"four cold runs   {separate:8.1f} s of CPU  {sum(run.wall for run in cold):8.1f} s")
    print(
        f"one sweep        {swept.cpu:8.1f} s of CPU  {swept.wall:8.1f} s  {swept.cpu / separate:.2f} of the CPU time"
    )
    print(f"the sweep again  {cached.cpu:8.1f} s of CPU  {cached.wall:8.1f} s")
    for ratio, made, found in jobs:
        print(f"  {ratio}: made {', '.join(made)}\n       found {', '.join(found) or 'nothing'}")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _absolute(word: str) -> str:
    """dataset.root=DIR with DIR as seen from anywhere."""
    key, equals, value = word.partition("=")
    return f"{key}={Path(value).absolute()}" if equals and "/" in value and Path(value).exists() else word


if __name__ == "__main__":
    main(sys.argv[1:])
