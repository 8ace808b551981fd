"""Types a command as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def poison(folder: Path) -> Path:
    """A folder that, on PYTHONPATH, makes every import of Paddle and its family fail."""
    for package in ("paddle", "paddleseg", "paddleslim"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"raise ImportError('{package} was imported')\n")
    return folder


def segslim(*arguments: str, cwd: Path, without_paddle: Path | None = None, timeout: float = 600):
    """`python run.py ARGUMENTS` in an empty working folder; the store and the outputs are there."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    if without_paddle is not None:
        environment["PYTHONPATH"] = str(without_paddle)
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
