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
from segslim.training.parallel.count import count_processes
from segslim.training.parallel.group import ALONE, Group
from segslim.training.parallel.launch import Launch, launch_of
from segslim.training.parallel.supervision import run_launched, run_together

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "segslim.stages.shared.training_process")

#: What each process of a group does for a stage; a function of a module, so that each can import it.
Share = Callable[[Mapping[str, Path], Config, Workspace, Group], str]


def by_processes(
    stage: str, share: Share, options: Training, inputs: Mapping[str, Path], config: Config, workspace: Workspace
) -> str:
    """The stage "train" or "retrain" by `options.processes`; returns its result in a few words."""
    width, height = config.dataset.size
    pixels = options.iters * options.batch_size * width * height
    launch = launch_of(config.store)
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
            return str(run_launched(COMMAND, job, config.device, heard, stop))
        log.info("%s: %d processes", stage, count)
        return str(run_together(COMMAND, count, job, config.device, heard, stop))


def help_to_train(launch: Launch, device: str) -> None:
    """What a run does that another host's, or process's, run of the same launch leads."""
    launch.help(lambda job: run_launched(COMMAND, job, device, lambda kind, content: None))


def _pass_on(workspace: Workspace, kind: str, content: Any) -> None:
    if kind == "progress":
        workspace.progress(*content)
    elif kind == "measured":
        workspace.measured(*content)
    elif kind == "log":
        name, level, message = content
        logging.getLogger(name).log(level, "%s", message)
