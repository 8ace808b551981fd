"""A process of a training: `python -m segslim.stages.shared.training_process`, which training_together.py starts."""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import TypeAdapter

from segslim.config import Config
from segslim.pipeline.stage import Workspace
from segslim.training.process_group import ProcessGroup
from segslim.training.processes import Send, run_worker


def work(job: Mapping[str, Any], group: ProcessGroup, send: Send) -> str:
    """This process's share of the job; the one that leads says how far it is."""
    workspace = Workspace(
        Path(job["artifact"]),
        Path(job["scratch"]),
        lambda what, done, total: send("progress", [what, done, total]),
        lambda iteration, numbers: send("measured", [iteration, dict(numbers)]),
    )
    inputs = {kind: Path(folder) for kind, folder in job["inputs"].items()}
    config = TypeAdapter(Config).validate_python(job["config"])
    return str(resolve_name(job["share"])(inputs, config, workspace, group))


if __name__ == "__main__":
    run_worker(work)
