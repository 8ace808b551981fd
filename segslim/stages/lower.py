"""lower: deployment -> deployment. The same files, to be computed in compress.precisions: no weight is touched."""

from collections.abc import Mapping
from pathlib import Path

from segslim.config import Config
from segslim.deployment import Deployment
from segslim.pipeline.stage import Workspace


def run(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the deployment whose deploy.yaml names the precisions that engines may compute in."""
    assert config.compress.precisions is not None  # check_precisions saw to it
    Deployment.load(inputs["deployment"]).with_compute(config.compress.precisions, workspace.artifact)
    return ", ".join(config.compress.precisions)
