"""Every network of conf/model/: seconds to its channel graph, what goes, the proof, the export, and the latency.

    uv run benchmarks/networks.py                                  # all of them, 256 x 192, as a Markdown table
    uv run benchmarks/networks.py --models fast_scnn,unet --ratios 0.2,0.5 --no-latency

FLOPs and parameters are what is left out of the whole, at each of --ratios and at the first of them. The proof
(tests/channels/proof.py): largest difference between the pruned network and the one with the same channels' producers
zeroed, in float64 with calibrated batch norm, auxiliary heads included; beside it the same with one index shifted by
one. The export: largest difference of the pruned network's ONNX file from the network, as a part of its largest logit.
Latency is the pruned network's at the first of --ratios against the dense one's, random weights in float32, timed in
turn (10 warm-up runs, 50 timed) in the engine that is faster for each.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from segslim.channels import ChannelGraph, prune_by_ratio  # noqa: E402
from segslim.deployment.engines import open_session  # noqa: E402
from segslim.deployment.export import export, export_onnx  # noqa: E402
from segslim.evaluation.latency import measure  # noqa: E402
from segslim.networks.network import build_network  # noqa: E402
from tests.channels.proof import calibrate, paddle, prove, random_kept  # noqa: E402

ENGINES = ("onnxruntime", "openvino")


def model_config(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", [f"model={name}", "dataset.num_classes=11"])
    return OmegaConf.to_container(composed.model.network, resolve=True)  # type: ignore[return-value]


def proof(model: dict[str, Any], graph: ChannelGraph, shape: tuple[int, ...]) -> tuple[float, float]:
    paddle.set_default_dtype("float64")  # networks make zeros of the default type on their way
    try:
        network = build_network(model, seed=1)
        network.to(dtype="float64")
        image = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, *shape[1:])))
        calibrate(network, image)
        return prove(network, graph, random_kept(graph, 0.6, seed=0), image[:1])
    finally:
        paddle.set_default_dtype("float32")


def deployed(model: dict[str, Any], shape: tuple[int, ...], ratio: float, options: argparse.Namespace) -> list[str]:
    """The export's difference, and where it is wanted the dense latency in ms and its change by pruning."""
    dense, pruned = (build_network(model, seed=1) for _ in range(2))
    prune_by_ratio(pruned, shape, ratio, align=options.align)
    with tempfile.TemporaryDirectory() as folder:
        # any tolerance: how much it differs is told. SegNet's unpooling puts nearly equal values elsewhere
        report = export(pruned, Path(folder, "pruned"), size=(shape[3], shape[2]), tolerance=1.0)
        if not options.latency:
            return [f"{report.difference:.0e}"]
        export_onnx(dense, Path(folder, "dense.onnx"), shape, output="argmax")
        files = {"dense": Path(folder, "dense.onnx"), "pruned": Path(folder, "pruned", "model.onnx")}
        times = latencies(files, shape, options.threads)
    best = {kind: min(times[kind, engine] for engine in ENGINES) for kind in files}
    return [f"{report.difference:.0e}", f"{best['dense']:.1f}", f"{best['pruned'] / best['dense'] - 1:+.0%}"]


def latencies(files: dict[str, Path], shape: tuple[int, ...], threads: int) -> dict[tuple[str, str], float]:
    """Mean ms of each file in each engine, all timed in turn."""
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    runs = {}
    for kind, file in files.items():
        for engine in ENGINES:
            session = open_session(engine, file, threads=threads)
            runs[kind, engine] = lambda session=session: session.run({session.input_names[0]: image})
    return {name: latency.mean for name, latency in measure(runs).items()}


def row(name: str, options: argparse.Namespace) -> list[str]:
    shape = (1, 3, options.height, options.width)
    model = model_config(name)
    network = build_network(model, seed=1)
    started = time.perf_counter()
    graph = ChannelGraph.trace(network, shape)
    seconds = time.perf_counter() - started
    results = [
        prune_by_ratio(build_network(model, seed=1), shape, ratio, align=options.align) for ratio in options.ratios
    ]
    parameters = 1 - graph.parameters(results[0].kept) / graph.parameters()
    right, wrong = proof(model, graph, shape)
    return [
        name,
        f"{seconds:.1f}",
        " / ".join(f"{1 - result.flops_after / result.flops_before:.3f}" for result in results),
        f"{parameters:.2f}",
        f"{right:.0e}",
        f"{wrong:.0e}",
        *deployed(model, shape, options.ratios[0], options),
    ]


def main() -> None:
    every = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml") if file.stem != "open")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(every), type=lambda text: text.split(","))
    parser.add_argument("--ratios", default="0.3,0.5", type=lambda text: [float(ratio) for ratio in text.split(",")])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--align", type=int, default=16)
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    first = options.ratios[0]
    headings = [
        "network",
        "graph, s",
        "FLOPs removed at " + " / ".join(map(str, options.ratios)),
        f"parameters removed at {first}",
        "difference",
        "one index shifted",
        "ONNX differs",
        *(["dense, ms", f"latency at {first}"] if options.latency else []),
    ]
    print(f"{options.width} x {options.height}, align {options.align}, Paddle {paddle.__version__}\n", flush=True)
    print(*(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings))), sep="\n", flush=True)
    for name in options.models:
        print(f"| {' | '.join(row(name, options))} |", flush=True)


if __name__ == "__main__":
    main()
