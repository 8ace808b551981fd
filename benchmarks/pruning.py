"""The second table of PaddleSeg's compression tutorial, on this CPU: time of three networks pruned by 0.1, 0.2, 0.3.

    uv run benchmarks/pruning.py                                 # as a Markdown table
    uv run benchmarks/pruning.py --models fast_scnn --size 2048x1024

As the tutorial measures: time of prediction alone, batch 1, 10 warm-up runs, the mean of 50 timed ones. It does so on
1024 x 2048 pixels; where a network's 240 runs would take over ten minutes here, the image is smaller, and the table
says so. Each network is timed whole and pruned in turn, in the engine that is faster for the whole one, in float32 with
random weights (time does not depend on them; every group loses the same share). The tutorial's own column is of a V100
with TensorRT. Where 0.3 of the FLOPs are not a quarter of the time, more goes until they are, as
compress=front compress.latency_ratio=0.75 does.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.networks import ENGINES, model_config  # noqa: E402
from segslim.channels import prune_by_ratio  # noqa: E402
from segslim.deployment.engines import Session, open_session  # noqa: E402
from segslim.deployment.export import export_onnx  # noqa: E402
from segslim.evaluation.latency import measure  # noqa: E402
from segslim.networks.network import build_network  # noqa: E402

RATIOS = (0.1, 0.2, 0.3)
AIM, MORE = 0.25, (0.4, 0.5, 0.6, 0.7)  # less time
SIZES = {"fast_scnn": "2048x1024", "fcn_hrnetw18": "1024x512", "unet": "512x256"}
#: Less time than the whole network, in docs/slim/slim/slim.md of PaddleSeg (V100, TensorRT 6, 1024 x 2048).
TUTORIAL = {
    "fast_scnn": (0.1571, 0.1857, 0.2000),
    "fcn_hrnetw18": (0.0651, 0.0663, 0.1025),
    "unet": (0.0216, 0.0518, 0.1194),
}


def export_pruned(name: str, shape: tuple[int, ...], ratio: float, align: int, file: Path) -> float:
    """Writes the network pruned by `ratio`, or whole at 0; returns the share of its FLOPs that went."""
    network = build_network({**model_config(name), "num_classes": 19}, seed=1)
    removed = 0.0
    if ratio:
        result = prune_by_ratio(network, shape, ratio, align=align)
        removed = 1 - result.flops_after / result.flops_before
    export_onnx(network, file, shape, output="argmax")
    return removed


def predicting(session: Session, image: np.ndarray) -> object:
    return session.run({session.input_names[0]: image})


def rows(name: str, size: str, options: argparse.Namespace) -> Iterator[list[str]]:
    width, height = map(int, size.split("x"))
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = {ratio: Path(folder, f"{ratio}.onnx") for ratio in (0.0, *RATIOS, *MORE)}
        removed = {r: export_pruned(name, image.shape, r, options.align, files[r]) for r in (0.0, *RATIOS)}
        whole = {engine: open_session(engine, files[0.0], threads=options.threads) for engine in ENGINES}
        trial = measure({e: lambda s=s: predicting(s, image) for e, s in whole.items()}, warmup=2, iters=5)
        engine = min(trial, key=lambda name: trial[name].median)

        def timed(ratios: Sequence[float]) -> dict[float, float]:
            """Mean ms, all in turn."""
            opened = {ratio: open_session(engine, files[ratio], threads=options.threads) for ratio in ratios}
            runs = {ratio: lambda s=s: predicting(s, image) for ratio, s in opened.items()}
            return {ratio: latency.mean for ratio, latency in measure(runs).items()}

        ms = timed((0.0, *RATIOS))
        yield [name, f"{height} x {width}", engine, "-", "-", f"{ms[0.0]:.1f}", "-", "-"]
        for ratio, tutorial in zip(RATIOS, TUTORIAL[name], strict=True):
            yield cells(ratio, removed[ratio], ms, f"{tutorial:.1%}")
        for ratio in MORE:
            if 1 - ms[max(ms)] / ms[0.0] >= AIM:
                break
            gone = export_pruned(name, image.shape, ratio, options.align, files[ratio])
            ms = timed((0.0, ratio))
            yield cells(ratio, gone, ms, "-")


def cells(ratio: float, removed: float, ms: dict[float, float], tutorial: str) -> list[str]:
    less = 1 - ms[ratio] / ms[0.0]
    return ["", "", "", f"{ratio}", f"{removed:.3f}", f"{ms[ratio]:.1f}", f"{less:.1%}", tutorial]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(TUTORIAL), type=lambda text: text.split(","))
    parser.add_argument("--size", help="WIDTHxHEIGHT of the image, for every network")
    parser.add_argument("--align", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    headings = ["network", "image", "engine", "ratio", "FLOPs removed", "ms", "less time", "tutorial's"]
    print(*(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings))), sep="\n", flush=True)
    for name in options.models:
        for row in rows(name, options.size or SIZES[name], options):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
