"""The jobs of a sweep: one that fails leaves the others running, jobs side by side get cores of their own, and the last
one is followed by a summary.
"""

import atexit
import json
import logging
import math
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from textwrap import shorten
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from segslim.command_line import CONF, expanded, quoted_value
from segslim.errors import Interrupted, UserError, end_by_signals, end_with_parent
from segslim.files import read_plain
from segslim.hardware import BESIDE, core_numbers, keep_to
from segslim.hardware import cores as usable_cores
from segslim.reporting.jobs import FAILURE, read_jobs, run_command
from segslim.reporting.sweep import write_sweep
from segslim.streams import complain

PREEMPTED = 900.0  # seconds that Slurm may leave to a job that it preempts
COUNTING = 5.0  # seconds between two lines on how many jobs have been checked
JOBS = "**/.hydra"  # at any depth: hydra.sweep.subdir may be ${model.name}/${hydra.job.num}
log = logging.getLogger(__name__)

Objective = float | tuple[float, ...]


def run_job(work: Callable[[], Objective], hydra: Any, store: Path | None = None) -> Objective | None:
    """Runs one job: returns what `work` returns, or None where one of its numbers is NaN or it fails.

    A failure is written to failure.json in the job's folder, {error, command (that runs this job alone), overrides,
    traceback (null for a user's mistake)}. The Optuna sweeper takes None for a failed trial; NaN would end the search.
    A job of submitit that a signal ends before its time limit is queued again, and goes on.

    Raises RuntimeError where this host does not see the sweep's folder: what is written here is read by nobody.
    """
    Path(hydra.runtime.output_dir, FAILURE).unlink(missing_ok=True)
    if _name_of(hydra.launcher) == "RayLauncher":  # whose processes begin in a folder of Ray's
        with suppress(OSError):
            os.chdir(hydra.runtime.cwd)
    if (unseen := not_shared(Path(hydra.sweep.dir), store)) is not None:
        if not Path(hydra.sweep.dir, SHARED).exists():
            raise RuntimeError(unseen)
        _fail(hydra, unseen)
        return None
    own_process = _name_of(hydra.launcher) == "JoblibLauncher"
    if own_process:  # otherwise it would go on after the sweep is stopped, until its work is done
        end_by_signals(quietly=True)
        end_with_parent(os.getppid(), signal.SIGTERM)
    requeue = _go_on_later(hydra)
    if _beside(hydra.launcher):
        os.environ[BESIDE] = str(hydra.job.num)
    try:
        with own_cores(hydra.launcher):
            objective = work()
        return None if any(map(math.isnan, objective if isinstance(objective, tuple) else [objective])) else objective
    except Interrupted as stopped:
        if own_process:
            os._exit(stopped.exit_code)
        if requeue is None:
            raise
        _fail(hydra, requeue(stopped))
    except UserError as error:
        _fail(hydra, str(error))
    except Exception as error:
        log.exception("job %s", hydra.job.num)
        _fail(hydra, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None


def _fail(hydra: Any, text: str, trace: str | None = None) -> None:
    """Says why a job failed, and writes it into its folder."""
    overrides = list(hydra.overrides.task)
    command = run_command(overrides, hydra)
    complain(f"error: job {hydra.job.num}: {text}")
    complain(f"  alone: {command}")
    record = {"error": text, "command": command, "overrides": overrides, "traceback": trace}
    file = Path(hydra.runtime.output_dir, FAILURE)
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _go_on_later(hydra: Any) -> Callable[[Interrupted], str] | None:
    """In a job of submitit, what ends it so that it goes on later: once it has saved, its time limit, or Slurm that
    wants its place for another, ends it. It returns only where the job is not to go on, and says why. Else None.

    submitit's own handlers act at once, in the midst of a step and in every forked process. From now on they do so
    only where nothing is saved on the way: outside of a training, which takes up the signal by `deferred`.
    """
    name = _name_of(hydra.launcher)
    if name not in ("SlurmLauncher", "LocalLauncher") or "SUBMITIT_FOLDER" not in os.environ:
        return None
    if sys.platform == "win32":  # submitit is for POSIX
        return None
    from submitit.core.utils import UncompletedJobError

    submitit_requeues: Any = signal.getsignal(signal.SIGUSR2)
    owner, limit = os.getpid(), hydra.launcher.timeout_min

    def end(stopped: Interrupted) -> str:
        number = stopped.exit_code - 128
        if number == signal.SIGUSR2:
            again = f"{stopped.reached}; it goes on from there when it is started again"
            complain(f"job {hydra.job.num}: close to its time limit, hydra.launcher.timeout_min={limit}: {again}")
            try:
                submitit_requeues(number, None)
            except SystemExit as ended:
                os._exit(int(ended.code or 0) & 0xFF)
            except (UncompletedJobError, OSError, subprocess.SubprocessError) as error:
                return (
                    f"its time limit, hydra.launcher.timeout_min={limit} minutes, came once more than"
                    f" hydra.launcher.max_num_timeout={hydra.launcher.max_num_timeout} lets it go on ({error});"
                    f" {stopped.reached}; the same command goes on from there"
                )
        if number == signal.SIGTERM and name == "SlurmLauncher":
            complain(f"job {hydra.job.num}: {stopped}; if Slurm has preempted it, Slurm starts it again")
            time.sleep(PREEMPTED)  # a job that ends by itself would have failed, and not be started again
        return str(stopped)

    def at_once(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # its forks get the signal, too
            _fail(hydra, end(Interrupted(number)))
            os._exit(128 + number)

    signal.signal(signal.SIGUSR2, at_once)
    if name == "LocalLauncher":  # Slurm's is left to submitit, which waits for the end, too
        signal.signal(signal.SIGTERM, at_once)
        with suppress(OSError):
            os.setsid()  # Ctrl-C is for the command that began it
    return end


# --- what hosts have in common

SHARED = "sweep.json"


def share(folder: Path, store: Path) -> None:
    """Called where a sweep begins: marks its folder and its store, so that a job on another host knows them.

    What cannot be written is left: the jobs will say so.
    """
    mark: str | None = f"sweep-{secrets.token_hex(8)}"
    try:
        (store / "runs").mkdir(parents=True, exist_ok=True)
        (store / "runs" / str(mark)).touch()
    except OSError:
        mark = None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        record = {"store": str(store), "mark": mark, "host": socket.gethostname()}
        (folder / SHARED).write_text(json.dumps(record) + "\n", encoding="utf-8")


def end_sharing(folder: Path) -> None:
    """Called where the last job has ended: takes the mark out of the store. Jobs of an earlier command, which go on,
    look for none from now on.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = read_plain(folder / SHARED)
        (folder / SHARED).write_text(json.dumps({**record, "mark": None}) + "\n", encoding="utf-8")
        Path(record["store"], "runs", str(record["mark"])).unlink()


def not_shared(folder: Path, store: Path | None) -> str | None:
    """Called where a job begins: what this host does not see of what `share` has written, in words; None where it sees
    all of it.
    """
    here = f"this job's host, {socket.gethostname()},"
    remedy = "on a file system that all hosts share, by its path from the root"
    try:
        record = read_plain(folder / SHARED)
        marked, mark, host = Path(record["store"]), record["mark"], record["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"hydra.sweep.dir={folder}: {here} does not see the folder of the sweep there: give one {remedy}"
    if store == marked and mark and not (store / "runs" / str(mark)).exists():  # a sweep over stores has marked one
        return f"store={store}: {here} does not see the store of {host} there: give store=DIR {remedy}"
    return None


class Summary(Callback):
    """A Hydra callback (conf/config.yaml): the sweep's table after its last job, and exit code 1 if one failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # a launcher's processes (submitit) start elsewhere, and segslim is no installed package
        root = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # Ray 2.60 would start its processes by `uv run` again, in a copy of the folder: reports would be lost there
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        launcher, folder = config.hydra.launcher, Path(config.hydra.sweep.dir)
        if _name_of(launcher) == "RayLauncher" and launcher.ray.init.get("address"):
            # a cluster that runs has its own, and Ray refuses another; hydra-ray-launcher 1.2.2 gives one where none is
            with read_write(launcher), open_dict(launcher):
                launcher.ray.init.object_store_memory = None
        if (_name_of(launcher), _name_of(config.hydra.sweeper)) == ("BasicLauncher", "BasicSweeper"):
            _compose_each_job_once()
        share(folder, Path(expanded(str(config.store))))
        # a launcher raises when one of its processes is killed: the other jobs are summed up all the same
        self._summarize = partial(summarize, folder)
        atexit.register(self._summarize)
        sys.excepthook = lambda kind, error, trace: complain(why_ended(folder, error))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        atexit.unregister(self._summarize)
        end_sharing(Path(config.hydra.sweep.dir))
        if OmegaConf.select(config, "benchmark.when") == "end":
            _time_at_the_end(Path(config.hydra.sweep.dir), config.hydra.launcher)
        if not self._summarize():
            sys.exit(1)


def _compose_each_job_once() -> None:
    """Hydra (1.3) composes the config of every job before the first one runs, to refuse a mistake in any, and again as
    it runs: a minute of silence for 500 jobs, twice. What is composed is kept for the second time, and is counted.
    """
    compose, told = ConfigLoaderImpl.load_sweep_config, time.monotonic()
    kept: dict[tuple[str, ...], DictConfig] = {}

    def once(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        nonlocal told
        key = tuple(sweep_overrides)
        if key in kept:
            return kept.pop(key)
        kept[key] = compose(loader, master_config, sweep_overrides)
        if time.monotonic() > told + COUNTING:
            told = time.monotonic()
            complain(f"checking the jobs before the first runs: {len(kept)} so far")
        return kept[key]

    setattr(ConfigLoaderImpl, "load_sweep_config", once)  # noqa: B010 (to mypy, a method is not to be assigned to)


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


def summarize(folder: Path) -> bool:
    """The table of a sweep on the screen, sweep.csv and sweep.html; whether all its jobs are done. A summary that fails
    does not fail the sweep.
    """
    if not any(folder.glob(JOBS)):
        return False
    try:
        return all(job.status == "done" for job in write_sweep(folder))
    except Exception as error:
        log.exception("the summary of %s", folder)
        complain(f"error: the summary of {folder} was not made: {error}")
        return not any(folder.glob(f"**/{FAILURE}"))


@contextmanager
def own_cores(launcher: Mapping[str, Any]) -> Iterator[None]:
    """Restricts a job that runs beside others on this machine, and its child processes, to cores of its own.

    Each job gets equally many. A lock file marks the cores that are taken; the system frees it with its holder. A job
    that finds none free, as beside another sweep, shares those of another job.
    """
    cores = core_numbers()
    share = _cores_of_a_job(launcher, usable_cores())
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


def _beside(launcher: Any) -> bool:
    """Whether its jobs run beside others on one machine."""
    name = _name_of(launcher)
    if name == "SlurmLauncher":  # unless it has the whole node
        return int(os.environ.get("SLURM_CPUS_ON_NODE", "0")) < (os.cpu_count() or 1)
    return name in ("LocalLauncher", "RayLauncher") or (name == "JoblibLauncher" and launcher["n_jobs"] != 1)


def _time_at_the_end(folder: Path, launcher: Any) -> None:
    name = _name_of(launcher)
    if name == "SlurmLauncher" or (name == "RayLauncher" and launcher.ray.init.get("address")):
        complain(
            "benchmark.when=end: this is no host of the cluster's jobs; have one, with nothing beside it, run"
            f" uv run python -m segslim report {os.path.relpath(folder)} --time"
        )
    else:
        time_again(folder)


def time_again(folder: Path) -> None:
    """Times what each job of a sweep deployed that was timed beside others: each by itself, with all cores, in turn
    with its baseline. All else comes from the store; report.json and report.html of the jobs are written again.
    """
    jobs = [job for job in read_jobs(folder) if job.beside]
    environment = {key: value for key, value in os.environ.items() if key != BESIDE}
    for number, job in enumerate(jobs, start=1):
        complain(f"timing {number} of {len(jobs)}, alone: {' '.join(job.own) or 'job ' + job.name}")
        uv, run, script, *words = shlex.split(job.command)
        assert (uv, run) == ("uv", "run")
        own = [f"hydra.run.dir={quoted_value(str(folder / job.name))}", "hydra.output_subdir=null"]
        command = [sys.executable, str(CONF.parent / script), *words, *own, "benchmark.again=true"]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode:
            reason = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
            complain(f"error: job {job.name} was not timed again: {reason}")


def _name_of(launcher: Mapping[str, Any]) -> str:
    return str(launcher["_target_"]).rpartition(".")[2]


def _cores_of_a_job(launcher: Mapping[str, Any], cores: int) -> int:
    """How many cores the launcher gives one job out of `cores`; 0 where jobs run one by one."""
    options: Any = OmegaConf.to_container(launcher) if isinstance(launcher, DictConfig) else launcher
    name = _name_of(launcher)
    if name == "JoblibLauncher":
        jobs = options["n_jobs"]
        return max(1, cores // jobs) if jobs > 0 else 1
    if name == "LocalLauncher":
        return options["cpus_per_task"] or 0
    if name == "RayLauncher":
        return int(options["ray"]["remote"].get("num_cpus") or 1)
    return cores if name == "SlurmLauncher" else 0
