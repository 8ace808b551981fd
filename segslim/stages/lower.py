"""lower: deployment -> deployment. The same files, to be computed in compress.precisions: no weight is touched."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.engines.precision import Precision, write_precision
from segslim.pipeline.stage import Workspace
from segslim.pipeline.store import MANIFEST


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the deployment whose deploy.yaml names the precisions that engines may compute in."""
    assert config.compress.precisions is not None  # check_precisions saw to it
    others = shutil.ignore_patterns(MANIFEST)
    shutil.copytree(inputs["deployment"], workspace.artifact, ignore=others, dirs_exist_ok=True)
    write_precision(workspace.artifact, Precision(compute=tuple(config.compress.precisions)))
    return ", ".join(config.compress.precisions)
