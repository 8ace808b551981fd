"""What is left of exported graphs: FLOPs, agreement with the file as it was given, time, size, without any training.

    uv run benchmarks/exported.py --ratios 0.3,0.5 --images DIR net.onnx:4:imagenet other.onnx:2
    uv run benchmarks/exported.py --only-graph *.onnx:2

Each network is FILE:CLASSES, with :imagenet where it takes images normalized as ImageNet's are; else by 0.5 and 0.5.
For each ratio it is pruned (obc) and solved for, and compared with the file that was given: the share of the images'
pixels that keep their class; the median time in the fastest engine, in units of the file's (paired rounds, interval);
bytes. `proof` is how far the pruned graph is from the one where all that makes and reads those channels is zero, as a
share of the largest logit, by ONNX Runtime in float32. `--only-graph` reads, prunes by l1_norm and proves alone.
Seconds are processor time of scoring and solving. One store for all: the same command goes on where it was stopped.
`--write-text` writes words onto the images first, for a detector of text.
"""
# ruff: noqa: E402

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir

from benchmarks.recovery import Clock
from segslim.channels import ChannelGraph, allocate, prune, score
from segslim.config import validate
from segslim.errors import UserError
from segslim.exported import ExportedNetwork
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.stage import read_json
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve

IMAGENET = ("model.input.mean=[0.485,0.456,0.406]", "model.input.std=[0.229,0.224,0.225]")
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
WORK = ("score", "prune", "reconstruct", "quantize")
PLAIN = ("model.input.mean=[0.5,0.5,0.5]", "model.input.std=[0.5,0.5,0.5]")


def proof(file: str, classes: int, ratio: float, size: tuple[int, int]) -> tuple[ChannelGraph, float, float]:
    """The channel graph, the share of FLOPs left, and how far the pruned graph is from the masked one."""
    network, masked = ExportedNetwork(file, classes), ExportedNetwork(file, classes)
    shape = (1, network.image_channels, size[1], size[0])
    graph, weights = ChannelGraph.trace(network, shape), network.state_dict()
    if not graph.prunable_groups:
        return graph, 1.0, 0.0
    kept = allocate(graph, score("l1_norm", graph, weights), None, ratio, 1, allocation="uniform")
    keep, zeroed = graph.keeps(kept), {name: weight.copy() for name, weight in weights.items()}
    for slot in graph.slots:
        if slot.parameter in graph.trainable:
            np.moveaxis(zeroed[slot.parameter], slot.axis, 0)[~keep[slot.ids]] = 0
    masked.set_weights(zeroed)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = masked.logits(image)
    prune(network, graph, kept)
    left = ChannelGraph.trace(network, shape).flops() / graph.flops()
    return graph, left, float(np.abs(network.logits(image) - wanted).max() / np.abs(wanted).max())


def graphs(options: argparse.Namespace) -> Iterator[list[str]]:
    yield ["file", "nodes", "groups", "channels", "never removed", "FLOPs", "proof"]
    for given in options.networks:
        file, classes, _ = parts(given)
        try:
            graph, left, off = proof(file, classes, options.ratios[0], options.size)
        except UserError as error:
            yield [Path(file).stem, *[""] * 5, str(error).partition(": ")[2] or str(error)]
            continue
        nodes = len(ExportedNetwork(file, classes).model.graph.node)
        channels = sum(group.size for group in graph.prunable_groups)
        pinned = ", ".join(graph.unsupported) or "-"
        yield [Path(file).stem, str(nodes), str(len(graph.prunable_groups)), str(channels), pinned,
               f"{left - 1:+.1%}", f"{off:.0e}"]  # fmt: skip


def compressions(options: argparse.Namespace) -> Iterator[list[str]]:
    yield ["file", "asked", "strategy", "FLOPs", "equal pixels", "time (95 %)", "bytes", "proof", "seconds"]
    clock = Clock(Store(options.store).root / "exported.json")
    for given in options.networks:
        file, classes, normalization = parts(given)
        for strategy in options.strategies:
            for ratio in options.ratios if "prune" in strategy else options.ratios[:1]:
                off = f"{proof(file, classes, ratio, options.size)[2]:.0e}" if "prune" in strategy else "-"
                typed = [
                    *("model=exported", f"model.file={Path(file).resolve()}", f"compress={strategy}"),
                    *("dataset=images", f"dataset.root={options.images}", f"dataset.num_classes={classes}"),
                    f"dataset.size=[{options.size[0]},{options.size[1]}]",
                    *normalization,
                    *((f"compress.ratio={ratio}",) if "prune" in strategy else ()),
                    *options.overrides,
                ]
                yield [Path(file).stem, f"{ratio:.0%}" if "prune" in strategy else "-", strategy,
                       *compressed(typed, Store(options.store), clock, off)]  # fmt: skip


def compressed(typed: list[str], store: Store, clock: Clock, off: str) -> list[str]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = validate(compose("config", typed))
    outcomes = run(plan(resolve(config), STAGES), store, clock)
    found = {outcome.step.stage.name: outcome.artifact.path for outcome in outcomes}
    costs = [
        read_json(o.artifact.path, "cost") for o in outcomes if o.step.stage.name == "export"
    ]  # the compressed one's, then the baseline's
    latency = read_json(found["benchmark"], "latency")["ratio"]
    agreement = next(read_json(o.artifact.path, "metrics")["agreement"] for o in outcomes if o.step.label == "evaluate")
    seconds = sum(clock.seconds.get(o.step.fingerprint, 0.0) for o in outcomes if o.step.stage.name in WORK)
    return [
        f"{costs[0]['flops'] / costs[-1]['flops'] - 1:+.1%}",
        f"{agreement['equal_pixels']:.4f}",
        f"{latency['value']:.2f} ({latency['low']:.2f} to {latency['high']:.2f})",
        f"{costs[0]['size_bytes'] / costs[-1]['size_bytes']:.2f}",
        off,
        f"{seconds:.0f}",
    ]


def with_text(images: Path, folder: Path) -> Path:
    """Copies of photographs with words written onto them, of many sizes, colours and angles, always the same."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(images.iterdir()):
        photo = cv2.imread(str(file))
        height, width = photo.shape[:2]
        for _ in range(random.integers(3, 12)):
            words = " ".join(
                "".join(random.choice(LETTERS, random.integers(2, 9))) for _ in range(random.integers(1, 5))
            )
            at = int(random.integers(0, width // 2)), int(random.integers(height // 10, height))
            colour, scale = random.integers(0, 256, 3).tolist(), float(random.uniform(0.5, 2.5)) * width / 640
            layer = np.zeros_like(photo)
            cv2.putText(layer, words, at, int(random.integers(0, 8)), scale, (255, 255, 255), max(1, int(2 * scale)))
            turned = cv2.getRotationMatrix2D(at, float(random.normal(0, 8)), 1.0)
            photo[cv2.warpAffine(layer, turned, (width, height))[..., 0] > 127] = colour
        cv2.imwrite(str(folder / f"{file.stem}.png"), photo)
    return folder


def parts(given: str) -> tuple[str, int, tuple[str, ...]]:
    file, classes, *more = given.split(":")
    return file, int(classes), IMAGENET if more == ["imagenet"] else PLAIN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="FILE:CLASSES, or FILE:CLASSES:imagenet")
    parser.add_argument("--ratios", type=lambda text: [float(part) for part in text.split(",")], default=[0.3, 0.5])
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=["prune_post"])
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(512, 512))
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--write-text", type=Path, metavar="FOLDER", help="where the images with words are put")
    parser.add_argument("--only-graph", action="store_true")
    parser.add_argument("--store", type=Path, default=Path(".segslim").absolute())
    parser.add_argument("--overrides", nargs="*", default=[], help="given to every run")
    options = parser.parse_args()
    if options.write_text is not None:
        options.images = with_text(options.images, options.write_text)
    for position, row in enumerate((graphs if options.only_graph else compressions)(options)):
        print(f"| {' | '.join(row)} |", flush=True)
        if position == 0:
            print("|---" * len(row) + "|", flush=True)


if __name__ == "__main__":
    main()
