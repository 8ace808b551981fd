"""One network in every format and precision, in its engine: agreement, mIoU, milliseconds and bytes, as Markdown.

    uv run benchmarks/formats.py model=pp_humanseg_lite train.checkpoint=mine.pdparams dataset=folder \
        dataset.root=PHOTOS dataset.num_classes=2 "dataset.size=[256,256]"

Overrides are those of run.py, and so is what is deployed: the network in float32, with export.fp16=true, and as
compress=ptq makes it. Agreement is the share of pixels of the validation images that get the class that the float32
ONNX file gives them in ONNX Runtime, which was compared with Paddle's network. Latencies are the quickest of --iters
runs of each, in processes of their own, in turn; with --cpu the processor time of one thread, which other work on the
machine disturbs less.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from segslim.config import Config, validate  # noqa: E402
from segslim.data.source import Dataset  # noqa: E402
from segslim.deployment.deployment import Deployment  # noqa: E402
from segslim.deployment.engines import available, computes_in, open_session, runs_int8  # noqa: E402
from segslim.evaluation.latency import measure  # noqa: E402
from segslim.hardware import instruction_set, processor  # noqa: E402
from segslim.pipeline.plan import plan  # noqa: E402
from segslim.pipeline.runner import run  # noqa: E402
from segslim.pipeline.store import Store  # noqa: E402
from segslim.stages import stages_for  # noqa: E402
from segslim.stages.shared.images import batches, usable_pairs  # noqa: E402
from segslim.stages.shared.sessions import class_ids, score, timed_sessions  # noqa: E402
from segslim.stages.strategy import resolve  # noqa: E402
from tests.pipeline.toy import Silent  # noqa: E402

WEIGHTS = {
    "float32": ["compress=none"],
    "float16": ["compress=none", "export.fp16=true"],
    "int8": ["compress=ptq", "compress.after=[]"],
}
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "paddle": "paddle", "mnn": "mnn", "ncnn": "ncnn"}
FILES = {
    "onnx": ["model.onnx"],
    "openvino": ["openvino.xml", "openvino.bin"],
    "paddle": ["model.json", "model.pdmodel", "model.pdiparams"],
    "mnn": ["model.mnn"],
    "ncnn": ["model.ncnn.param", "model.ncnn.bin"],
}


def deployed(typed: list[str], strategy: list[str], store: Path) -> tuple[Deployment, Dataset, Config]:
    engines = available(FORMATS)
    formats = ",".join(FORMATS[engine] for engine in engines)
    chosen = [f"engine.candidates=[{','.join(engines)}]", f"export.formats=[{formats}]", f"store={store}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", [*typed, *strategy, "stages.last=[export]", *chosen])
    config = validate(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]))
    planned = plan(resolve(config), stages_for(config), ("baseline_deployment", "deployment"))
    folders = {outcome.step.fingerprint: outcome.artifact.path for outcome in run(planned, Store(store), Silent())}
    kind = "deployment" if "deployment" in planned.results else "baseline_deployment"
    dataset = Dataset.load(folders[planned.results["dataset"].fingerprint])
    return Deployment.load(folders[planned.results[kind].fingerprint]), dataset, config


def variants(deployments: dict[str, Deployment]) -> Iterator[tuple[str, str, str]]:
    """(engine, weights, type that is computed in) of all that can run here."""
    for weights, deployment in deployments.items():
        for engine in available(FORMATS):
            if weights == "float16" and engine == "paddle":  # its file stays as it is
                continue
            if deployment.precision.is_int8 and not runs_int8(engine):
                continue
            for compute in computes_in(engine):
                yield engine, weights, compute


def processor_time(engine: str, deployment: Deployment, compute: str, image: np.ndarray, iters: int) -> float:
    session = open_session(engine, deployment, threads=1, precision=compute)
    feed = {session.input_names[0]: image}
    samples = []
    for _ in range(iters + 3):
        started = time.process_time()
        session.run(feed)
        samples.append(1000 * (time.process_time() - started))
    return min(samples[3:])


def table(typed: list[str], store: Path, iters: int, cpu: bool) -> Iterator[str]:
    made = {weights: deployed(typed, strategy, store) for weights, strategy in WEIGHTS.items()}
    deployments = {weights: deployment for weights, (deployment, _, _) in made.items()}
    _, dataset, config = made["float32"]
    images = list(batches(config, usable_pairs(config, dataset, "val")))
    kept = list(variants(deployments))
    wanted = {str(each): (deployments[each[1]], each[0], each[2]) for each in kept}
    if cpu:
        times = {key: processor_time(each[1], each[0], each[2], images[0][0], iters) for key, each in wanted.items()}
    else:
        with timed_sessions(wanted, images[0][0], config, all_of_them=True) as sessions:
            timed = measure(sessions, 3, iters, config.benchmark.settle)
        times = {key: latency.quickest for key, latency in timed.items()}
    reference = open_session("onnxruntime", deployments["float32"], threads=1)
    expected = [class_ids(reference.run({reference.input_names[0]: image})[0]) for image, _ in images]
    yield "| engine, format | weights | computed in | equal pixels | mIoU | ms | bytes |"
    yield "|---|---|---|---|---|---|---|"
    for engine, weights, compute in kept:
        deployment, found = deployments[weights], FILES[FORMATS[engine]]
        session = open_session(engine, deployment, threads=config.engine.threads or 2, precision=compute)
        name = session.input_names[0]
        equal = [
            (class_ids(session.run({name: image})[0]) == right).mean()
            for (image, _), right in zip(images, expected, strict=True)
        ]
        miou = score(session, config, images).miou
        size = sum((deployment.folder / one).stat().st_size for one in found if (deployment.folder / one).is_file())
        took = times[str((engine, weights, compute))]
        yield (
            f"| {engine}, {FORMATS[engine]} | {weights} | {compute} | {100 * float(np.mean(equal)):.2f} % | {miou:.4f}"
            f" | {took:.2f} | {size:,} |"
        )
    yield (
        f"\n{config.model.name} at {config.dataset.size[0]} x {config.dataset.size[1]}, {len(images)} images;"
        f" {processor()} ({instruction_set()}), the quickest of {iters} runs"
        f"{', processor time of one thread' if cpu else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as for run.py")
    parser.add_argument("--store", type=Path, help="where the runs are kept; a temporary folder")
    parser.add_argument("--iters", type=int, default=50)
    parser.add_argument("--cpu", action="store_true", help="processor time of one thread")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in table(options.overrides, options.store or Path(folder), options.iters, options.cpu):
            print(line, flush=True)


if __name__ == "__main__":
    main()
