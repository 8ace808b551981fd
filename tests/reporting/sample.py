"""A small report and its artifacts, as a run leaves them."""

import copy
import json
from pathlib import Path

import numpy as np
from PIL import Image

MEASURED = {
    "miou": 0.8123,
    "class_iou": [0.91, 0.7146, None],
    "accuracy": 0.95,
    "kappa": 0.8,
    "dice": 0.88,
    "flops": 169253888,
    "params": 1400155,
    "size_bytes": 5733556,
    "latency_ms": {"quickest": 9.91, "mean": 10.02, "median": 9.93, "p99": 12.03, "std": 0.44},
    "engine": "openvino",
    "session": {"name": "openvino", "version": "2026.4.1", "device": "cpu", "threads": 2, "precision": "float32"},
}


def sample_report(folder: Path | None = None, **changed) -> dict:
    """A report of a pruned network; with a folder, of artifacts that are there."""
    compressed = {
        **copy.deepcopy(MEASURED),
        "miou": 0.7911,
        "flops": 135382016,
        "params": 885915,
        "size_bytes": 3652283,
    }
    compressed["latency_ms"] = {"quickest": 7.93, "mean": 8.01, "median": 7.95, "p99": 9.07, "std": 0.31}
    made = {
        "strategy": "prune",
        "model": "fast_scnn",
        "dataset": "camvid",
        "seed": 7,
        "stages": [
            {"name": name, "fingerprint": f"{name:f<64}", "cached": name == "data", "seconds": 1.5, "result": "done"}
            for name in ("data", "analyze", "prune", "retrain", "benchmark", "preview")
        ],
        "baseline": copy.deepcopy(MEASURED),
        "compressed": compressed,
        "change": {
            "flops": -0.2001,
            "params": -0.3673,
            "size": -0.363,
            "latency": -0.2006,
            "latency_interval": [-0.22, -0.18],
            "miou": -0.0212,
        },
        "advice": [],
        "warnings": [],
        "overrides": ["compress=prune", "compress.ratio=0.2"],
        "made": "2026-11-24T12:00:00+00:00",
        "size": [64, 48],
        "classes": ["sky", "road", "car"],
        "colours": [[128, 128, 128], [128, 64, 128], [64, 0, 128]],
        "artifacts": {},
        "machine": {"processor": "a processor", "cores": 2, "python": "3.11.7", "system": "Linux"},
        "packages": {"onnx": "1.16.0"},
        **changed,
    }
    if folder is not None:
        _add_artifacts(made, folder)
    return made


def write_run(folder: Path, report: dict, overrides=None) -> Path:
    """The folder of a run: report.json and what was typed."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    write_overrides(folder, report["overrides"] if overrides is None else overrides)
    return folder


def write_overrides(folder: Path, overrides) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(overrides)))


def _add_artifacts(made: dict, folder: Path) -> None:
    kinds = {"data": "dataset", "analyze": "sensitivity", "prune": "checkpoint", "benchmark": "latency"}
    for stage in made["stages"]:
        path = folder / stage["name"]
        path.mkdir(parents=True)
        stage["artifact"] = str(path)
        made["artifacts"][kinds.get(stage["name"], "pictures" if stage["name"] == "preview" else "other")] = str(path)
    split = {"pairs": 4, "sizes": [{"width": 64, "height": 48, "images": 4}], "class_pixels": [60, 30, 10]}
    summary = {name: {**split, "ignored_pixels": 5} for name in ("train", "val")}
    _write(folder / "data" / "summary.json", summary)
    _write(folder / "data" / "skipped.json", {split: {} for split in summary})
    _write(folder / "data" / "reading.json", {"channels": 3, "max_value": None, "label_map": {}, "ignored": 255})
    Image.new("RGB", (1400, 100), "white").save(folder / "data" / "samples.png")
    losses = {f"backbone.layer{n}.conv": {"0.25": 0.01 * n, "0.5": 0.03 * n} for n in range(8)}
    _write(folder / "analyze" / "sensitivity.json", {"baseline": 0.8, "losses": losses})
    groups = {name: {"channels": 64, "kept": 48} for name in losses}
    _write(folder / "prune" / "measured.json", {"groups": groups})
    rows = "".join(f"{i},{1 / i},0.01,9,{0.5 if i % 10 == 0 else ''}\n" for i in range(1, 301))
    (folder / "retrain" / "curve.csv").write_text("iteration,loss,learning_rate,images_per_second,miou\n" + rows)
    samples = {
        role: {"samples": (mean + np.arange(6)).tolist(), "quickest": mean}
        for role, mean in (("baseline", 10), ("compressed", 8))
    }
    _write(folder / "benchmark" / "latency.json", samples)
    files = {kind: f"0-{kind}.png" for kind in ("image", "label", "baseline", "compressed", "difference")}
    for name in files.values():
        Image.new("RGB", (32, 24), "red").save(folder / "preview" / name)
    image = {"name": "a.png", "chosen": "evenly", "changed": 0.05, "accuracy": {"baseline": 0.9, "compressed": 0.85}}
    record = {"looked_at": 4, "of": 4, "images": [{**image, "files": files}]}
    _write(folder / "preview" / "pictures.json", record)


def _write(file: Path, content) -> None:
    file.write_text(json.dumps(content))
