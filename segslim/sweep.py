"""The jobs of a sweep: one that fails leaves the others running, jobs side by side get cores of their own, and the last
one is followed by a summary.
"""

import atexit
import json
import logging
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from segslim.errors import Interrupted, UserError, end_by_signals, end_with_parent
from segslim.hardware import core_numbers, keep_to
from segslim.reporting.jobs import FAILURE, read_jobs, run_command
from segslim.reporting.sweep import write_sweep
from segslim.streams import complain

JOBS = "**/.hydra"  # at any depth: hydra.sweep.subdir may be ${model.name}/${hydra.job.num}
log = logging.getLogger(__name__)

Objective = float | tuple[float, ...]


def run_job(work: Callable[[], Objective], hydra: Any) -> Objective | None:
    """Runs one job: returns what `work` returns, or None where one of its numbers is NaN or it fails.

    A failure is written to failure.json in the job's folder, {error, command (that runs this job alone), overrides,
    traceback (null for a user's mistake)}. The Optuna sweeper takes None for a failed trial; NaN would end the search.
    """
    overrides = list(hydra.overrides.task)
    command = run_command(overrides, hydra)
    failure = Path(hydra.runtime.output_dir, FAILURE)
    failure.unlink(missing_ok=True)
    own_process = _name_of(hydra.launcher) == "JoblibLauncher"
    if own_process:  # otherwise it would go on after the sweep is stopped, until its work is done
        end_by_signals(quietly=True)
        end_with_parent(os.getppid(), signal.SIGTERM)
    try:
        with own_cores(hydra.launcher):
            objective = work()
        return None if any(map(math.isnan, objective if isinstance(objective, tuple) else [objective])) else objective
    except Interrupted as stopped:
        if not own_process:
            raise
        os._exit(stopped.exit_code)
    except UserError as error:
        text, trace = str(error), None
    except Exception as error:
        text, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        log.exception("job %s", hydra.job.num)
    complain(f"error: job {hydra.job.num}: {text}")
    complain(f"  alone: {command}")
    record = {"error": text, "command": command, "overrides": overrides, "traceback": trace}
    failure.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return None


class Summary(Callback):
    """A Hydra callback (conf/config.yaml): the sweep's table after its last job, and exit code 1 if one failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # a launcher's processes (submitit) start elsewhere, and segslim is no installed package
        root = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # Ray 2.60 would start its processes by `uv run` again, in a copy of the folder: reports would be lost there
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        # a launcher raises when one of its processes is killed: the other jobs are summed up all the same
        folder = Path(config.hydra.sweep.dir)
        self._summarize = partial(summarize, folder)
        atexit.register(self._summarize)
        sys.excepthook = lambda kind, error, trace: complain(why_ended(folder, error))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        atexit.unregister(self._summarize)
        self._summarize()
        if any(Path(config.hydra.sweep.dir).glob(f"**/{FAILURE}")):
            sys.exit(1)


def why_ended(folder: Path, error: BaseException) -> str:
    """One line on why a sweep ended early. Jobs report their own failures, so `error` is the launcher's (a process was
    killed) or the sweeper's (every job failed, so it cannot choose the best).
    """
    jobs = read_jobs(folder) if any(folder.glob(JOBS)) else []
    failed = [job for job in jobs if job.status == "failed"]
    if jobs and len(failed) == len(jobs):
        return f"error: all {len(jobs)} jobs have failed, the first with: {failed[0].error}; alone: {failed[0].command}"
    reason = shorten(f"{type(error).__name__}: {error}", 400)
    return f"error: the sweep was cut off: {reason}; what is finished is kept"


def summarize(folder: Path) -> None:
    """The table of a sweep on the screen, sweep.csv and sweep.html. A summary that fails does not fail the sweep."""
    if not any(folder.glob(JOBS)):
        return
    try:
        write_sweep(folder)
    except Exception as error:
        log.exception("the summary of %s", folder)
        complain(f"error: the summary of {folder} was not made: {error}")


@contextmanager
def own_cores(launcher: Mapping[str, Any]) -> Iterator[None]:
    """Restricts a job that runs beside others on this machine, and its child processes, to cores of its own.

    Each job gets equally many. A lock file marks the cores that are taken; the system frees it with its holder. A job
    that finds none free, as beside another sweep, shares those of another job.
    """
    cores = core_numbers()
    share = _cores_of_a_job(launcher, len(cores))
    if not 0 < share < len(cores):
        yield
        return
    slices = [cores[start : start + share] for start in range(0, len(cores) - share + 1, share)]
    folder = Path(tempfile.gettempdir(), "segslim-cores")
    if sys.platform != "win32":  # where each user has a temporary folder of their own
        folder = folder.with_name(f"segslim-cores-{os.getuid()}")
    with ExitStack() as held:
        own = slices[os.getpid() % len(slices)]
        for candidate in slices:
            with suppress(Timeout, OSError):  # OSError: somebody else has made the folder, or the disk is full
                folder.mkdir(exist_ok=True)
                held.enter_context(FileLock(folder / f"cores-{candidate[0]}.lock", timeout=0))
                own = candidate
                break
        keep_to(own)
        try:
            yield
        finally:
            keep_to(cores)


def _name_of(launcher: Mapping[str, Any]) -> str:
    return str(launcher["_target_"]).rpartition(".")[2]


def _cores_of_a_job(launcher: Mapping[str, Any], cores: int) -> int:
    """How many cores the launcher gives one job; 0 where jobs run one by one, or a cluster assigns them."""
    options: Any = OmegaConf.to_container(launcher) if isinstance(launcher, DictConfig) else launcher
    name = _name_of(launcher)
    if name == "JoblibLauncher":
        jobs = options["n_jobs"]
        return max(1, cores // jobs) if jobs > 0 else 1
    if name == "LocalLauncher":
        return options["cpus_per_task"] or 0
    if name == "RayLauncher":
        return int(options["ray"]["remote"].get("num_cpus") or 1)
    return 0
