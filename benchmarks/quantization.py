"""One network in float and int8, ours and the peers': mIoU, bytes and latency in each engine, all timed in turn.

    uv run --group nncf benchmarks/quantization.py model=fast_scnn dataset=camvid dataset.root=DIR \
        "dataset.size=[256,192]" train.checkpoint=FILE --ours compress=ptq --ours "compress=quant retrain.iters=60"
    uv run --group nncf benchmarks/quantization.py model=deeplabv3 "dataset.size=[512,256]" train.iters=1 --val 0

Overrides are those of run.py, and so is what is deployed: each --ours is a run up to its export. The peers get the
float file of that run and the same calibration images: ONNX Runtime's quantize_static by minmax, entropy and
percentile, and by minmax with reduce_range; NNCF's defaults, of the ONNX file for ONNX Runtime and of OpenVINO's own
model for OpenVINO. Not neural-compressor: 3.10 has backends for PyTorch, TensorFlow and JAX only, and 2.6, the last
with one for ONNX, needs numpy below 2.

mIoU is that of the validation images: of the file computed in float (Q and DQ as they stand), and in each engine. With
ONEDNN_MAX_CPU_ISA=AVX2 in the environment OpenVINO computes as on a processor without VNNI. Latency is the median
of --iters rounds; with --cpu it is the processor time of one thread, which other work on the machine disturbs less.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import openvino  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from segslim.config import Config, validate  # noqa: E402
from segslim.data.source import Dataset  # noqa: E402
from segslim.deployment.deployment import Deployment  # noqa: E402
from segslim.deployment.engines import Session, computes_in, open_session  # noqa: E402
from segslim.deployment.engines.onnx_runtime import open_in_float  # noqa: E402
from segslim.deployment.engines.openvino import OpenVinoSession  # noqa: E402
from segslim.evaluation.latency import Latency  # noqa: E402
from segslim.hardware import instruction_set, processor  # noqa: E402
from segslim.pipeline.plan import plan  # noqa: E402
from segslim.pipeline.runner import run  # noqa: E402
from segslim.pipeline.store import Store  # noqa: E402
from segslim.stages import stages_for  # noqa: E402
from segslim.stages.shared.images import batches, evenly, usable_pairs  # noqa: E402
from segslim.stages.shared.sessions import score  # noqa: E402
from segslim.stages.strategy import resolve  # noqa: E402
from tests.pipeline.toy import Silent  # noqa: E402

FLOAT = "float32"  # the row of the network itself
ORT = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile", "minmax, reduced range": "MinMax"}
Files = dict[str, dict[str, Path]]  # by row and engine


def configured(*overrides: str) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", [*overrides, "stages.last=[export]", "compress.after=[]"])
    return validate(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]))


def ours(typed: list[str], strategies: list[str], store: Path) -> tuple[Files, Config, Dataset]:
    files: Files = {}
    for strategy in strategies:
        config = configured(*typed, *strategy.split(), f"store={store}")
        planned = plan(resolve(config), stages_for(config), ("baseline_deployment", "deployment"))
        folders = {outcome.step.fingerprint: outcome.artifact.path for outcome in run(planned, Store(store), Silent())}
        for row, kind in ((FLOAT, "baseline_deployment"), (f"segslim {strategy}", "deployment")):
            file = Deployment.load(folders[planned.results[kind].fingerprint]).onnx_file
            files[row] = dict.fromkeys(("onnxruntime", "openvino"), file)
        dataset = Dataset.load(folders[planned.results["dataset"].fingerprint])
    return files, config, dataset


def of_onnx_runtime(float_file: Path, images: list[np.ndarray], folder: Path) -> Files:
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(ort.CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"x": image}

    prepared, files = folder / "prepared.onnx", {}
    quant_pre_process(str(float_file), str(prepared), skip_symbolic_shape=True)
    for name, method in ORT.items():
        file = folder / f"ort {name}.onnx"
        ort.quantize_static(
            str(prepared),
            str(file),
            Reader(),
            per_channel=True,
            reduce_range="reduced" in name,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            calibrate_method=getattr(ort.CalibrationMethod, method),
        )
        files[f"quantize_static {name}"] = dict.fromkeys(("onnxruntime", "openvino"), file)
    return files


def of_nncf(float_file: Path, images: list[np.ndarray], folder: Path) -> Files:
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    onnx_file, own_file = folder / "nncf.onnx", folder / "nncf.xml"
    fed = nncf.Dataset(images, lambda image: {"x": image})
    onnx.save(nncf.quantize(onnx.load(float_file), fed, subset_size=len(images)), onnx_file)
    model = openvino.Core().read_model(float_file)
    own = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
    openvino.save_model(own, own_file, compress_to_fp16=False)
    return {f"NNCF {nncf.__version__}": {"onnxruntime": onnx_file, "openvino": own_file}}


def opened(files: Files, threads: int) -> dict[tuple[str, str], Session]:
    """By row and place: the engine with its precision, or "in float"."""
    sessions: dict[tuple[str, str], Session] = {}
    for row, by_engine in files.items():
        sessions[row, "in float"] = open_in_float(Deployment.from_onnx(by_engine["onnxruntime"]), threads)
        for engine, file in by_engine.items():
            # a limited oneDNN has no kernels for a bfloat16 that the processor has
            limited = {"bfloat16"} if "ONEDNN_MAX_CPU_ISA" in os.environ else set()
            for precision in set(computes_in(engine)) - {"float16"} - limited:
                made = (
                    OpenVinoSession(openvino.Core(), file, threads, precision, "cpu")
                    if file.suffix == ".xml"
                    else open_session(engine, file, threads=threads, precision=precision)
                )
                sessions[row, f"{engine} {precision}"] = made
    return sessions


def timed(runs: Mapping[Any, Callable[[], object]], iters: int, clock: Callable[[], float]) -> dict[Any, Latency]:
    samples: dict[Any, list[float]] = {key: [] for key in runs}
    for at in range(iters + 3):
        for key, one in runs.items():
            started = clock()
            one()
            if at >= 3:
                samples[key].append(1000 * (clock() - started))
    return {key: Latency.from_samples(of_one) for key, of_one in samples.items()}


def size(file: Path) -> int:
    return file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)


def table(options: argparse.Namespace, folder: Path) -> Table:
    files, config, dataset = ours(options.overrides, options.ours, Path(options.store or folder / "store"))
    train = usable_pairs(config, dataset, "train")
    images = [image for image, _ in batches(config, [train[at] for at in evenly(len(train), options.images)])]
    float_file = files[FLOAT]["onnxruntime"]
    if not options.no_peers:
        files |= {**of_onnx_runtime(float_file, images, folder), **of_nncf(float_file, images, folder)}
    sessions = opened(files, options.threads)
    runs = {
        key: (lambda s=session: s.run({s.input_names[0]: images[0]}))
        for key, session in sessions.items()
        if key[1] != "in float"
    }
    latencies = timed(runs, options.iters, time.process_time if options.cpu else time.perf_counter)
    pairs = usable_pairs(config, dataset, "val")
    judged = list(batches(config, [pairs[at] for at in evenly(len(pairs), options.val)])) if options.val != 0 else []
    engines = list(dict.fromkeys(place for _, place in runs))
    scored = ["in float", *(place for place in engines if place.endswith("float32"))]
    rows = Table(title=f"{config.model.name}, {config.dataset.name} {'x'.join(map(str, config.dataset.size))}")
    for heading in ("", *(f"mIoU {place}" for place in scored), "bytes", *(f"ms {place}" for place in engines)):
        rows.add_column(heading, justify="right" if heading else "left")
    for row, by_engine in files.items():
        miou = [f"{score(sessions[row, place], config, judged).miou:.4f}" if judged else "-" for place in scored]
        ms = [f"{latencies[row, place].median:.2f}" for place in engines]
        rows.add_row(row, *miou, f"{size(by_engine['openvino']):,}", *ms)
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    rows.caption = (
        f"{processor()} ({instruction_set()}{f', oneDNN limited to {isa}' if isa else ''}), {options.threads} threads,"
        f" median {'processor' if options.cpu else 'wall'} time of {options.iters} runs, {len(judged)} images"
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as for run.py")
    parser.add_argument("--ours", action="append", help="a strategy with its overrides; compress=ptq")
    parser.add_argument("--images", type=int, default=32, help="that the peers are calibrated on")
    parser.add_argument("--val", type=int, help="validation images, 0 for none; all")
    parser.add_argument("--store", help="where our runs are kept; a temporary folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iters", type=int, default=50)
    parser.add_argument("--cpu", action="store_true", help="processor time")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_intermixed_args()
    options.ours = options.ours or ["compress=ptq"]
    with tempfile.TemporaryDirectory() as folder:
        Console(width=200).print(table(options, Path(folder)))


if __name__ == "__main__":
    main()
