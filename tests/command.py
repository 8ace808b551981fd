"""Types a command as a user would, composes a config as run.py does, and reads the report."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from segslim.config import Config, validate

ROOT = Path(__file__).parents[1]
#: A run of seconds: four convolutions, twelve drawn images, a few iterations. What a test adds comes after it.
TINY = (
    "~model.network",
    "+model.network={_target_:tests.channels.small.Small,num_classes:2}",
    "model.loss.coef=[1.0]",
    "dataset.size=[64,64]",
    "dataset.source.train_images=8",
    "dataset.source.val_images=4",
    "train.iters=4",
    "train.batch_size=2",
    "train.save_interval=1",
    "retrain.iters=2",
    "retrain.batch_size=2",
    "benchmark.warmup=0",
    "benchmark.iters=2",
    "benchmark.settle=0",
    "benchmark.seconds=0",
    "benchmark.layers=false",
    "engine=onnxruntime",
    "num_workers=0",
)
#: What makes pruning quick: scores by the weights alone, one analysis, and little to solve for.
QUICK_PRUNING = (
    *("compress.criterion=l1_norm", "compress.analysis.images=1", "compress.analysis.ratios=[0.5]"),
    *("compress.reconstruct.images=8", "compress.reconstruct.positions=64"),
)


def poison(folder: Path) -> Path:
    """A folder that, on PYTHONPATH, makes every import of Paddle and its family fail."""
    for package in ("paddle", "paddleseg", "paddleslim"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"raise ImportError('{package} was imported')\n")
    return folder


def segslim(
    *arguments: str, cwd: Path, without_paddle: Path | None = None, without_asserts: bool = False, timeout: float = 600
):
    """`python run.py ARGUMENTS` in a working folder, where the store and the outputs are; or `python -O run.py`."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    if without_paddle is not None:
        environment["PYTHONPATH"] = str(without_paddle)
    return subprocess.run(
        [sys.executable, *(["-O"] if without_asserts else []), str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )


def config(*overrides: str) -> Config:
    """What run.py would make of the overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return validate(compose("config", list(overrides)))


def last_report(folder: Path) -> dict[str, Any]:
    """report.json of the latest run in a working folder."""
    files = (folder / "outputs").rglob("report.json")
    return json.loads(max(files, key=lambda file: file.stat().st_mtime_ns).read_text(encoding="utf-8"))
