"""Every network of conf/model/: seconds to its channel graph, FLOPs and parameters that go, the proof, and the latency.

    uv run benchmarks/networks.py                                  # all of them, 256 x 192
    uv run benchmarks/networks.py --models fast_scnn,unet --ratios 0.2,0.5 --no-latency

The proof (tests/channels/proof.py): largest difference between the pruned network and the one with the same channels'
producers zeroed, in float64 with calibrated batch norm, auxiliary heads included; beside it the same with one index
shifted by one. Latency is the pruned network's at --latency-ratio against the dense one's, float32, timed in turn (10
warm-up runs, 50 timed) in the engine that is faster for each.
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
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from segslim.channels import ChannelGraph, prune  # noqa: E402
from segslim.deployment.export import export_onnx  # noqa: E402
from segslim.engines import open_session  # noqa: E402
from segslim.errors import UserError  # noqa: E402
from segslim.evaluation.latency import measure  # noqa: E402
from segslim.networks.build import build_network  # noqa: E402
from tests.channels.proof import calibrate, paddle, prove, random_kept  # noqa: E402


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


def latencies(
    model: dict[str, Any], shape: tuple[int, ...], ratio: float, align: int, threads: int
) -> dict[str, float]:
    """Mean ms of {dense, pruned} x {onnxruntime, openvino}, all timed in turn."""
    runs = {}
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("dense", "pruned"):
            network = build_network(model, seed=1)
            if kind == "pruned":
                prune(network, shape, ratio, align=align)
            file = Path(folder, f"{kind}.onnx")
            export_onnx(network, file, shape, output="argmax")
            for engine in ("onnxruntime", "openvino"):
                session = open_session(engine, file, threads=threads)
                runs[f"{kind} {engine}"] = lambda session=session: session.run({session.input_names[0]: image})
        return {name: latency.mean for name, latency in measure(runs).items()}


def row(name: str, options: argparse.Namespace) -> list[str]:
    shape = (1, 3, options.height, options.width)
    model = model_config(name)
    network = build_network(model, seed=1)
    started = time.perf_counter()
    graph = ChannelGraph.trace(network, shape)
    seconds = time.perf_counter() - started
    right, wrong = proof(model, graph, shape)
    cells = [name, f"{seconds:.1f}", f"{right:.0e}", f"{wrong:.0e}"]
    for ratio in options.ratios:
        try:
            result = prune(build_network(model, seed=1), shape, ratio, align=options.align)
            cells.append(f"{1 - result.flops_after / result.flops_before:.3f}")
        except UserError as error:
            cells.append(str(error))
    if options.latency:
        times = latencies(model, shape, options.latency_ratio, options.align, options.threads)
        best = {
            kind: min(times[f"{kind} {engine}"] for engine in ("onnxruntime", "openvino"))
            for kind in ("dense", "pruned")
        }
        cells += [f"{best['dense']:.1f}", f"{best['pruned'] / best['dense'] - 1:+.0%}"]
    return cells


def main() -> None:
    every = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml") if file.stem != "open")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(every), type=lambda text: text.split(","))
    parser.add_argument("--ratios", default="0.2,0.5", type=lambda text: [float(ratio) for ratio in text.split(",")])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--latency-ratio", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    table = Table(title=f"{options.width} x {options.height}, align {options.align}, Paddle {paddle.__version__}")
    measured = ["dense ms", f"latency at {options.latency_ratio}"] if options.latency else []
    for heading in (
        "network",
        "graph s",
        "difference",
        "shifted",
        *(f"FLOPs at {r}" for r in options.ratios),
        *measured,
    ):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name in options.models:
        table.add_row(*row(name, options))
        print(name, file=sys.stderr, flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
