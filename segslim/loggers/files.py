"""What the loggers share: a folder of their own, and the package that they need."""

import importlib.util
import shutil
from pathlib import Path

from segslim.errors import UserError


def fresh_folder(folder: Path) -> Path:
    """An empty folder: a log is written whole each time, so what an earlier run left there would be drawn twice."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def require(logger: str, package: str, group: str) -> None:
    """Raises UserError, with the command that installs it, unless `package` is installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"logger={logger} needs {package}, which is not installed: uv sync --group {group}")
