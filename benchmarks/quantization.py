"""fp32, bf16, int8 (ours) and int8 (NNCF) of one network: mIoU, bytes and latency on each engine, all timed in turn.

    uv run --group nncf benchmarks/quantization.py --models fast_scnn,bisenetv2 --checkpoints DIR,DIR \
        --data ../shared/data/camvid
    uv run --group nncf benchmarks/quantization.py --models deeplabv3,deeplabv3p,gcnet,pspnet --width 512 --height 256

With --data (images in PaddleSeg's file-list format) mIoU is that of the checkpoints, else networks are untrained and
calibrated on noise, and only latency and bytes mean something. The tutorial's own speed-ups (int8 against fp32 of its
first table, less time by 26.5 % for deeplabv3, 39.2 % for deeplabv3p, 37.5 % for gcnet, 22.5 % for pspnet) stand beside
ours. --qat names checkpoint folders that compress=quant has retrained, for a column of their own.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table as Rows  # noqa: E402

from segslim.config import Config, validate  # noqa: E402
from segslim.deployment.engines import computes_in, open_session  # noqa: E402
from segslim.deployment.export import export_onnx  # noqa: E402
from segslim.evaluation.latency import measure  # noqa: E402
from segslim.networks.checkpoint import Checkpoint  # noqa: E402
from segslim.networks.network import build_network  # noqa: E402
from segslim.quantization.calibration import activation_ranges, collect_statistics  # noqa: E402
from segslim.quantization.qdq import quantize  # noqa: E402
from segslim.quantization.spec import QuantizationSpec  # noqa: E402
from segslim.stages.shared.images import batches, evenly, source  # noqa: E402
from segslim.stages.shared.sessions import score  # noqa: E402

TUTORIAL = {"deeplabv3": 0.265, "deeplabv3p": 0.392, "gcnet": 0.375, "pspnet": 0.225}  # share of time that int8 saves


def configured(model: str, options: argparse.Namespace) -> Config:
    overrides = [f"model={model}", f"dataset.size=[{options.width},{options.height}]"]
    if options.data:
        overrides += ["dataset=camvid", f"dataset.root={options.data}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides)
    return validate(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]))


def calibration(config: Config, options: argparse.Namespace) -> list[np.ndarray]:
    if not options.data:
        shape = (1, 3, options.height, options.width)
        return [np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in range(4)]
    pairs = source(config).pairs(Path(options.data), "train")
    chosen = [pairs[at] for at in evenly(len(pairs), options.images)]
    return [image for image, _ in batches(config, chosen)]


def files(network: Any, qat: str | None, images: list[np.ndarray], folder: Path, threads: int) -> dict[str, Path]:
    """{fp32, int8, NNCF int8, QAT int8}: ONNX files, the peer's as OpenVINO keeps it."""
    shape = tuple(images[0].shape)
    export_onnx(network, folder / "fp32.onnx", shape, output="argmax")
    model = onnx.load(folder / "fp32.onnx")
    found = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    quantize(
        model,
        QuantizationSpec(activation_ranges(collect_statistics(onnx.load(found["fp32"]), images, threads), "mse", 0)),
    )
    onnx.save(model, found["int8"])
    if qat:
        export_onnx(Checkpoint.load(qat).network(), folder / "qat.onnx", shape, output="argmax")
        model = onnx.load(folder / "qat.onnx")
        table = QuantizationSpec.load(Path(qat))
        assert table is not None
        quantize(model, table)
        onnx.save(model, folder / "qat.onnx")
        found["QAT int8"] = folder / "qat.onnx"
    try:
        import nncf
        import openvino
    except ImportError:
        return found
    nncf.set_log_level("ERROR")
    peer = nncf.quantize(openvino.Core().read_model(found["fp32"]), nncf.Dataset(images), subset_size=len(images))
    openvino.save_model(peer, folder / "nncf.xml", compress_to_fp16=False)
    return {**found, "NNCF int8": folder / "nncf.xml"}


class Peer:
    """NNCF's model in OpenVINO with the options of engines/openvino.py."""

    def __init__(self, file: Path, precision: str, threads: int):
        import openvino

        types = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": types[precision], "NUM_STREAMS": 1}
        core = openvino.Core()
        self._model = core.compile_model(str(file), "CPU", {**hints, "INFERENCE_NUM_THREADS": threads})
        self._request = self._model.create_infer_request()
        self.input_names = [self._model.inputs[0].any_name]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        results = self._request.infer(inputs, share_inputs=True)
        return [results[self._model.outputs[0]]]


def sessions(found: dict[str, Path], threads: int) -> dict[tuple[str, str], Any]:
    """By (file, engine and precision)."""
    opened: dict[tuple[str, str], Any] = {}
    for kind, file in found.items():
        for engine in ("onnxruntime", "openvino"):
            for precision in computes_in(engine):
                where = f"{engine} {precision}"
                if file.suffix == ".onnx":
                    opened[kind, where] = open_session(engine, file, threads=threads, precision=precision)
                elif engine == "openvino" and precision != "float16":
                    opened[kind, where] = Peer(file, precision, threads)
    return opened


def size(file: Path) -> int:
    return file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)


def report(model: str, checkpoint: str | None, qat: str | None, options: argparse.Namespace) -> Rows:
    config = configured(model, options)
    network = Checkpoint.load(checkpoint).network() if checkpoint else build_network(config.model.network, seed=0)
    images = calibration(config, options)
    rows = Rows(title=f"{model}, {options.width} x {options.height}, {options.threads} threads, median ms")
    with tempfile.TemporaryDirectory() as folder:
        found = files(network, qat, images, Path(folder), options.threads)
        opened = sessions(found, options.threads)
        feed = images[0]
        runs: dict[str, Callable[[], object]] = {
            str(key): (lambda s=session: s.run({s.input_names[0]: feed})) for key, session in opened.items()
        }
        timed = {key: found.median for key, found in measure(runs, iters=options.iters).items()}
        places = list(dict.fromkeys(where for _, where in opened))
        for heading in ("", "mIoU", "bytes", *places):
            rows.add_column(heading, justify="left" if not heading else "right")
        for kind, file in found.items():
            judged = opened[kind, "openvino float32"]
            miou = f"{validated(judged, config, options):.4f}" if options.data else "-"
            cells = [f"{timed[str((kind, w))]:.2f}" if (kind, w) in opened else "-" for w in places]
            rows.add_row(kind, miou, f"{size(file):,}", *cells)
        rows.caption = verdict(model, {key: timed[str(key)] for key in opened}, places)
    return rows


def verdict(model: str, timed: dict[tuple[str, str], float], places: list[str]) -> str:
    fp32, int8 = (timed[kind, "openvino float32"] for kind in ("fp32", "int8"))
    words = f"OpenVINO at f32: int8 {fp32 / int8:.2f} times as fast as fp32"
    peer = timed.get(("NNCF int8", "openvino float32"))
    words += f", {int8 / peer:.2f} of NNCF's time" if peer else ""
    best = {kind: min(timed[kind, where] for where in places) for kind in ("fp32", "int8")}
    exact = min(timed["fp32", where] for where in places if where.endswith("float32"))
    words += f"; best engine and precision: int8 {1 - best['int8'] / exact:.1%} less time than fp32 in float32"
    words += f", {best['fp32'] / best['int8']:.2f} times as fast as the float network at best"
    return words + (f"; the tutorial's int8 takes {TUTORIAL[model]:.1%} less" if model in TUTORIAL else "")


def validated(session: Any, config: Config, options: argparse.Namespace) -> float:
    pairs = source(config).pairs(Path(options.data), "val")
    return score(session, config, batches(config, pairs)).miou


def main() -> None:
    def several(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="fast_scnn,bisenetv2,hardnet", type=several)
    parser.add_argument("--checkpoints", default=[], type=several, help="one folder a model, in the same order")
    parser.add_argument("--qat", default=[], type=several, help="one retrained folder a model, in the same order")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=32, help="to calibrate on")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iters", type=int, default=50)
    options = parser.parse_args()
    for at, model in enumerate(options.models):
        given = [folders[at] if at < len(folders) else None for folders in (options.checkpoints, options.qat)]
        Console(width=160).print(report(model, *given, options))


if __name__ == "__main__":
    main()
