"""The jobs of a sweep by joblib, so many at a time, or by submitit, all at once: a Slurm array, or processes of this
machine (conf/hydra/launcher/). A job that is killed, or whose node dies, ends no other.

Those of submitit outlive the command that began them: who stops it is told how to end them and how to look at them
later.
"""

import logging
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)
TICK = 1.0  # seconds between two looks for results
ASKING = 10.0  # seconds between two questions to Slurm
LATE = 15.0  # seconds in which the result of a job that has ended becomes visible on a shared file system


class _Launcher(Launcher):
    def __init__(self) -> None:
        self.config: Any = None
        self.hydra_context: Any = None
        self.task_function: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def __call__(
        self, overrides: Sequence[str], number: int, job_id: str | None, singletons: Mapping[type, Singleton]
    ) -> JobReturn:
        """One job, in a process of its own."""
        Singleton.set_state(singletons)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = number
            config.hydra.job.id = job_id or f"{config.hydra.job.name}_{number}"
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


class JoblibLauncher(_Launcher):
    """`n_jobs` processes of this machine, which take the jobs by turns.

    When one of them is killed, the pool ends the others and cannot say which it was: all that is not done goes on from
    what the store holds. Once that has helped none to its end, one by one: so the job that cannot be done is found.
    """

    def __init__(self, n_jobs: int) -> None:
        super().__init__()
        self.n_jobs = n_jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from joblib import effective_n_jobs
        from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor, as_completed

        from segslim.streams import complain

        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        waiting = dict(enumerate(job_overrides, initial_job_idx))
        results: dict[int, JobReturn] = {}
        again: set[int] = set()
        at_once = most = effective_n_jobs(self.n_jobs)
        while waiting:
            begun = len(waiting)
            pool, killed = ProcessPoolExecutor(at_once), ""
            try:
                state = Singleton.get_state()
                jobs = {pool.submit(self, own, number, None, state): number for number, own in waiting.items()}
                for job in as_completed(jobs):
                    if isinstance(error := job.exception(), BrokenProcessPool):
                        killed = next((word for word in re.findall(r"SIG\w+", str(error))), "its end")
                        continue
                    results[jobs[job]] = job.result()
                    del waiting[jobs[job]]
            finally:
                pool.shutdown(kill_workers=bool(waiting))
            if not killed:
                continue
            number = min(waiting)
            if at_once == 1 and (at_once < most or number in again):
                complain(f"error: job {number} was ended twice by {killed} and is left out: is its memory enough?")
                results[number] = JobReturn(status=JobStatus.COMPLETED)
                del waiting[number]
                at_once = most
            else:
                which = f"job {number}" if at_once == 1 else "one of the jobs"
                complain(f"warning: {which} was ended by {killed}: what is not done goes on from its last snapshot")
                again.add(number)
                at_once = at_once if len(waiting) < begun else 1
        return [results[number] for number in sorted(results)]


class _SubmititLauncher(_Launcher):
    """Its arguments are the keys of conf/hydra/launcher/submitit_*.yaml."""

    def __init__(self, submitit_folder: str, max_num_timeout: int = 0, **parameters: Any) -> None:
        super().__init__()
        self.submitit_folder, self.max_num_timeout = submitit_folder, max_num_timeout
        self.parameters = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in parameters.items()
            if value is not None
        }

    def __call__(
        self, overrides: Sequence[str], number: int, job_id: str | None, singletons: Mapping[type, Singleton]
    ) -> JobReturn:
        import submitit

        return super().__call__(overrides, number, submitit.JobEnvironment().job_id, singletons)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit starts when the job is requeued: the same job, which goes on from the store."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from segslim.errors import Interrupted, deferred
        from segslim.streams import complain

        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        # jobs of this machine inherit it: Ctrl-C is not theirs
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            jobs = self.executor().map_array(
                self, job_overrides, numbers, [None] * len(numbers), [Singleton.get_state()] * len(numbers)
            )
        finally:
            signal.signal(signal.SIGINT, interrupt)
        waiting = dict(zip(numbers, jobs, strict=True))
        complain(f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}: {self.how_to_end(jobs)}")
        results: dict[int, JobReturn] = {}
        with deferred() as stop:
            ended: dict[int, float] = {}  # when it was seen that a job has ended that has no result
            asked = 0.0
            while waiting and not stop():
                for number, job in list(waiting.items()):
                    if job.paths.result_pickle.exists():
                        results[number] = self._result(number, waiting.pop(number))
                if time.monotonic() > asked + ASKING:
                    asked = time.monotonic()
                    living = self.living(list(waiting.values()))
                    for number, job in list(waiting.items()):
                        if job.job_id in living:
                            ended.pop(number, None)
                        elif asked > ended.setdefault(number, asked) + LATE:
                            results[number] = self._without_result(number, waiting.pop(number))
                time.sleep(TICK)
            if stop():
                going = list(waiting.values())
                raise Interrupted(
                    stop(),
                    f"{len(going)} of {len(jobs)} jobs go on ({self.how_to_end(going)}; uv run python -m segslim report"
                    f" {folder} looks at them)",
                )
        return [results[number] for number in numbers]

    def _result(self, number: int, job: Any) -> JobReturn:
        from segslim.streams import complain

        try:
            (result,) = job.results()
        except Exception as error:  # of the job: what it raised, in words
            complain(f"error: job {number}: {_last_line(error)}; its log is {job.paths.stderr}")
            return JobReturn(status=JobStatus.COMPLETED)
        if result.status != JobStatus.COMPLETED:
            complain(f"error: job {number}: {result._return_value}")
            return JobReturn(status=JobStatus.COMPLETED)
        return result

    def _without_result(self, number: int, job: Any) -> JobReturn:
        from segslim.streams import complain

        file = next((file for file in (job.paths.stderr, job.paths.stdout) if file.exists()), None)
        where = (
            f"its log is {file}"
            if file is not None
            else f"it has left no log in {job.paths.folder}: does its host see that folder, and this environment?"
        )
        complain(f"error: job {number} ({job.job_id}) ended without a result{self.why(job)}: {where}")
        return JobReturn(status=JobStatus.COMPLETED)

    def executor(self) -> Any:
        """That of submitit, with its parameters."""
        raise NotImplementedError

    def how_to_end(self, jobs: Sequence[Any]) -> str:
        """The command, in words."""
        raise NotImplementedError

    def living(self, jobs: Sequence[Any]) -> set[str]:
        """The ids of those that wait, run or are to run again."""
        raise NotImplementedError

    def why(self, job: Any) -> str:
        """How it ended, behind a comma, where that is known."""
        return ""


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("-", "You can check"))]
    return next((line.strip() for line in reversed(lines) if re.match(r"[\w.]+: ", line)), lines[-1] if lines else "")


class LocalLauncher(_SubmititLauncher):
    """Processes of this machine."""

    def executor(self) -> Any:
        import submitit

        executor = submitit.LocalExecutor(self.submitit_folder, max_num_timeout=self.max_num_timeout)
        executor.update_parameters(**self.parameters)
        return executor

    def how_to_end(self, jobs: Sequence[Any]) -> str:
        return f"kill {' '.join(job.job_id for job in jobs)} ends them"

    def living(self, jobs: Sequence[Any]) -> set[str]:
        return {job.job_id for job in jobs if not job.done()}


class SlurmLauncher(_SubmititLauncher):
    """A job array."""

    def executor(self) -> Any:
        import submitit

        executor = submitit.AutoExecutor(
            self.submitit_folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
        )
        general = executor._valid_parameters()  # those that submitit names alike for every cluster
        executor.update_parameters(
            **{key if key in general else f"slurm_{key}": value for key, value in self.parameters.items()}
        )
        return executor

    def how_to_end(self, jobs: Sequence[Any]) -> str:
        return f"scancel {' '.join(dict.fromkeys(job.job_id.partition('_')[0] for job in jobs))} ends them"

    def living(self, jobs: Sequence[Any]) -> set[str]:
        arrays = ",".join(dict.fromkeys(job.job_id.partition("_")[0] for job in jobs))
        command = ["squeue", "--noheader", "--array", "--format=%i %A", f"--jobs={arrays}"]
        everyone = {job.job_id for job in jobs}
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKING)
        except subprocess.TimeoutExpired:  # without its controller squeue tries for minutes
            return everyone
        if answer.returncode and "Invalid job id" not in answer.stderr:  # Slurm does not answer now
            return everyone
        return set(answer.stdout.split())

    def why(self, job: Any) -> str:
        command = ["scontrol", "show", "job", job.job_id]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        found = dict(re.findall(r"(JobState|Reason|ExitCode)=(\S+)", answer.stdout))
        return f", {found['JobState']}" if "JobState" in found else ""
