"""Real exports of a tiny network, and a process that predicts with one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.command import ROOT

CLASSES = ["background", "disc", "视杯"]
COLOURS = [(10, 20, 30), (200, 100, 0), (0, 150, 250)]
SIZE = (96, 64)  # width, height
NORMALIZE = {"type": "Normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
RESIZE = {"type": "Resize", "target_size": list(SIZE)}


def write_export(folder: Path, **options: Any) -> Path:
    """FastSCNN of three classes, untrained, as `segslim.deployment.export` writes it."""
    from segslim.deployment.export import export
    from segslim.paddle_compat import import_paddle, import_paddleseg

    import_paddle().seed(0)
    network = import_paddleseg().models.FastSCNN(num_classes=len(CLASSES))
    formats = ["paddle", "onnx", "mnn", *(["ncnn"] if options.get("size") else [])]  # ncnn: of one size
    about = {"transforms": [RESIZE, NORMALIZE], "classes": CLASSES, "colours": COLOURS, "formats": formats}
    export(network, folder, **{**about, **options})
    return folder


def predict(*arguments: Any, cwd: Path, without_paddle: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m segslim.predict ARGUMENTS` in a working folder; what `poison` wrote keeps Paddle away."""
    paths = [str(ROOT), *([str(without_paddle)] if without_paddle else [])]
    return subprocess.run(
        [sys.executable, "-m", "segslim.predict", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(reversed(paths))},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
