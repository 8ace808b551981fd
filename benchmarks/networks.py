"""Every network of conf/model/: seconds to its channel graph, what goes, the proof, the export, and the latency.

    uv run benchmarks/networks.py                                  # all of them, 256 x 192, as a Markdown table
    uv run benchmarks/networks.py --models fast_scnn,unet --ratios 0.2,0.5 --no-latency
    uv run benchmarks/networks.py --classes all --width 64 --height 64     # every network class of PaddleSeg, small

FLOPs and parameters are what is left out of the whole, at each of --ratios and at the first of them. The proof
(tests/channels/proof.py): largest difference between the pruned network and the one with the same channels' producers
zeroed, in float64 with calibrated batch norm, auxiliary heads included; beside it the same with one index shifted by
one. The export: largest difference of the pruned network's ONNX file from the network, as a part of its largest logit.
Latency is the pruned network's at the first of --ratios against the dense one's, random weights in float32, timed in
turn (10 warm-up runs, 50 timed) in the engine that is faster for each.
"""

import argparse
import subprocess
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
        network._to_impl(dtype="float64", floating_only=True)  # `to` makes floats of indices, too (Swin's)
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


STEPS = ("prunes", "proof", "trains", "reconstructs", "exports", "int8")


def class_row(name: str, options: argparse.Namespace) -> None:
    """Prints, step by step, what comes of one network class of PaddleSeg, in its smallest form (tests/paddleseg)."""
    import onnx

    from segslim.channels.reconstruction import reconstruct
    from segslim.errors import UserError
    from segslim.paddleseg.components import component_node
    from segslim.paddleseg.section import Section
    from segslim.quantization.calibration import activation_ranges, collect_statistics
    from segslim.quantization.qdq import quantize
    from segslim.quantization.spec import QuantizationSpec
    from tests.paddleseg.registry import node

    shape = (1, 3, options.height, options.width)
    model = component_node(Section(name, "model", node(name)), "MODELS", "BACKBONES")
    dense, pruned = (build_network(model, seed=1) for _ in range(2))
    random = np.random.default_rng(0)
    images = [random.standard_normal(shape, np.float32) for _ in range(8)]
    folder = Path(tempfile.mkdtemp())

    def prunes() -> str:
        result = prune_by_ratio(pruned, shape, 0.3)
        steps["kept"] = result.kept
        return f"{1 - result.flops_after / result.flops_before:.3f}"

    def proves() -> str:
        right, wrong = proof(model, ChannelGraph.trace(dense, shape), shape)
        return f"{right:.0e} ({wrong:.0e})"

    def trains() -> str:
        network = build_network(model, seed=1)
        network.train()
        outputs = paddle.utils.flatten(network(paddle.to_tensor(np.concatenate(images[:2]))))
        loss = sum((each.astype("float32") ** 2).mean() for each in outputs)
        loss.backward()
        return f"{sum(each.grad is not None for each in network.parameters())} gradients"

    def reconstructs() -> str:
        files = {"dense": dense, "pruned": pruned}
        for file, network in files.items():
            export_onnx(network, folder / f"{file}.onnx", shape)
        graph = ChannelGraph.trace(dense, shape)
        kept = kept_axes(graph, steps["kept"])
        loaded = [onnx.load(folder / f"{file}.onnx") for file in files]
        solved = reconstruct(*loaded, kept, images, tensors=graph.tensors)
        return f"{sum(not error.left for error in solved.errors.values())} of {len(solved.errors)} layers"

    def exports() -> str:
        size = (options.width, options.height)
        return f"{export(pruned, folder / 'export', size=size, tolerance=1e-3).report.difference:.0e}"

    def int8() -> str:
        graph = onnx.load(folder / "export" / "model.onnx")
        ranges = activation_ranges(collect_statistics(graph, images, 1), "mse", 0.9999)
        quantize(graph, QuantizationSpec(ranges))
        onnx.save(graph, folder / "int8.onnx")
        session = open_session("onnxruntime", folder / "int8.onnx", threads=1)
        return f"runs, {session.run({session.input_names[0]: images[0]})[0].shape[1]} rows"

    steps: dict[str, Any] = {}
    for step, run in zip(STEPS, (prunes, proves, trains, reconstructs, exports, int8), strict=True):
        try:
            print(f"{step}\t{run()}", flush=True)
        except UserError as error:
            print(f"{step}\trefused: {error}", flush=True)
        except Exception as error:  # what no user may see: it is told apart
            print(f"{step}\tFAILS: {type(error).__name__}: {' '.join(str(error).split())[:150]}", flush=True)


def kept_axes(graph: ChannelGraph, kept: Any) -> dict[str, dict[int, list[int]]]:
    """{Paddle's name of a parameter: {axis: what is left}} of what groups keep."""
    keep = graph.keeps(kept)
    axes: dict[str, dict[int, list[int]]] = {}
    for slot in graph.slots:
        left = np.flatnonzero(keep[slot.ids])
        if len(left) < len(slot.ids) and slot.parameter in graph.tensors:
            axes.setdefault(graph.tensors[slot.parameter], {})[slot.axis] = left.tolist()
    return axes


def classes_table(options: argparse.Namespace) -> None:
    """Each class in a process of its own, which may take `--timeout` seconds, and may die."""
    from tests.paddleseg.registry import registered

    every = [component.name for component in registered("MODELS")]
    names = every if options.classes == ["all"] else options.classes
    print(*(f"| {' | '.join(cells)} |" for cells in (("network", *STEPS), ["---"] * 7)), sep="\n", flush=True)
    for name in names:
        command = [sys.executable, __file__, "--one", name]
        command += ["--width", str(options.width), "--height", str(options.height)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
            said, end = done.stdout, f"the process ended with code {done.returncode}" if done.returncode else "-"
        except subprocess.TimeoutExpired as error:
            said, end = (error.stdout or b"").decode(), f"over {options.timeout} s"
        found = dict(line.split("\t", 1) for line in said.splitlines() if line.partition("\t")[0] in STEPS)
        first = next((step for step in STEPS if step not in found), "")
        cells = [found.get(step, end if step == first else "-").replace("|", "/") for step in STEPS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    every = sorted(
        file.stem for file in (ROOT / "conf" / "model").glob("*.yaml") if file.stem not in ("open", "exported")
    )
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(every), type=lambda text: text.split(","))
    parser.add_argument("--ratios", default="0.3,0.5", type=lambda text: [float(ratio) for ratio in text.split(",")])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--align", type=int, default=16)
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=lambda text: text.split(","), help="of PaddleSeg, or all: what each can do")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one class")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return class_row(options.one, options)
    if options.classes:
        return classes_table(options)
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
