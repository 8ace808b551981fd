"""Training by one process or several: the number, and the way from a stage to its processes."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segslim.config import Config, Training
from segslim.interruption import deferred
from segslim.pipeline.stage import Workspace
from segslim.training.process_group import ALONE, ProcessGroup
from segslim.training.processes import Launch, count_processes, run_processes

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "segslim.stages.shared.training_process")

#: What each process of a group does for a stage; a function of a module, so that each can import it.
Share = Callable[[Mapping[str, Path], Config, Workspace, ProcessGroup], str]


def by_processes(
    stage: str, share: Share, options: Training, inputs: Mapping[str, Path], config: Config, workspace: Workspace
) -> str:
    """The stage "train" or "retrain" by `options.processes`; returns its result in a few words."""
    width, height = config.dataset.size
    pixels = options.iters * options.batch_size * width * height
    launch = Launch.from_environment(config.store)
    count = count_processes(options.processes, config.device, options.batch_size, pixels)
    if launch is None and count == 1:
        return share(inputs, config, workspace, ALONE)
    job = {
        "share": f"{share.__module__}:{share.__qualname__}",
        "inputs": {kind: str(folder) for kind, folder in inputs.items()},
        "config": dataclasses.asdict(config),
        "artifact": str(workspace.artifact),
        "scratch": str(workspace.scratch),
    }
    heard = partial(_pass_on, workspace)
    with deferred() as stop:
        if launch is not None:
            launch.check(stage, options.batch_size)
            launch.publish(job)
            return str(run_processes(COMMAND, None, job, config.device, heard, stop))
        log.info("%s: %d processes", stage, count)
        return str(run_processes(COMMAND, count, job, config.device, heard, stop))


def help_to_train(launch: Launch, device: str) -> None:
    """What a run does that another host's, or process's, run of the same launch leads."""
    launch.follow(lambda job: run_processes(COMMAND, None, job, device, lambda kind, content: None))


def _pass_on(workspace: Workspace, kind: str, content: Any) -> None:
    if kind == "progress":
        workspace.progress(*content)
    elif kind == "measured":
        workspace.measured(*content)
