"""One composed config -> the stages run, the report written, the exit code."""

import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from segslim.command_line import COMPLETION, expanded, help_text, in_one_line, version
from segslim.config import Config, validate
from segslim.errors import Interrupted, UserError, complain_of, refusal
from segslim.streams import complain

if TYPE_CHECKING:
    from segslim.pipeline.plan import Plan
    from segslim.training.launch import Launch


def run(composed: DictConfig) -> float | tuple[float, ...] | None:
    """Runs the strategy of one composed config and returns its objective, for a sweeper that searches.

    Writes report.json and run.log into Hydra's output folder. A UserError becomes one line and exit code 2; a job of a
    sweep that fails returns None, and the others go on.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:  # an exit, since Hydra adds lines of its own to an exception
        if hydra.job.chdir:
            raise UserError(
                "hydra.job.chdir=true: relative paths, the store's too, would be of another folder; remove it"
            )
        if hydra.mode == RunMode.MULTIRUN:
            from segslim.sweep import run_job
            from segslim.training.launch import Launch

            if Launch.of_this_process() is not None:
                raise UserError("paddle.distributed.launch is for one run: sweep (-m) without it")
            return run_job(lambda: execute(validate(composed), folder)[0], hydra, Path(expanded(str(composed.store))))
        objective, held = execute(validate(composed), folder)
    except (UserError, OSError, MemoryError) as error:
        sys.exit(complain_of(error))
    if not held:
        sys.exit(3)
    return objective


def execute(config: Config, folder: Path) -> tuple[float | tuple[float, ...], bool]:
    """Plans, runs, reports. Gives the objective, and whether the bounds of compress=front hold.

    Raises UserError for a mistake of the user's, before any work where it can be known.
    """
    from segslim.training.launch import Launch, together

    launch = Launch.of_this_process()
    with together(launch):
        return _execute(config, folder, launch)


def _execute(config: Config, folder: Path, launch: "Launch | None") -> tuple[float | tuple[float, ...], bool]:
    from segslim.front import Silent, explore, first
    from segslim.pipeline.plan import plan
    from segslim.pipeline.runner import run as walk
    from segslim.pipeline.store import Store, in_use
    from segslim.reporting.loggers import with_logger
    from segslim.reporting.metrics import check_objective, objective_value
    from segslim.reporting.page import write_page_after_run
    from segslim.reporting.report import WANTED, build_report, write_report
    from segslim.reporting.terminal import Terminal
    from segslim.stages import TIMING, stages_for
    from segslim.stages.shared.training_process import COMMAND
    from segslim.stages.strategy import resolve

    check_objective(config.objective)
    store = Store(Path(config.store))
    strategy = resolve(first(config))
    steps = plan(strategy, stages_for(config), WANTED)
    terminal = Terminal(strategy[-1][1], folder / "run.log", steps.steps)
    if launch is not None:
        launch.agree(_facts_of_training(steps), store.root)
        if launch.rank > 0:
            launch.follow(COMMAND)
            return math.nan, True
    with with_logger(terminal, config.logger, folder) as listener, terminal:
        front = None
        if config.compress.front is not None:
            config, front = explore(config, store, listener, terminal.line, folder / "points", _overrides())
            steps = plan(resolve(config), stages_for(config), WANTED)
        with in_use(store.root, (step.fingerprint for step in steps.steps)):
            again = steps.made_by(TIMING) if config.benchmark.again and front is None else ()
            outcomes = walk(steps, store, listener if front is None else Silent(), again=again)
        report = build_report(config, steps, outcomes, _overrides(), front)
        write_report(report, folder / "report.json")
        write_page_after_run(folder)
        listener.report(report, folder)
    return objective_value(report, config.objective), front is None or not front["missed"]


def _facts_of_training(plan: "Plan") -> dict[str, Any]:
    """{what: value} of all that the trainings of a plan depend on, causes first: what the runs of a launch have to have
    in common. Later stages may depend on the processor.
    """
    from segslim.stages import TRAININGS

    last = max((at for at, step in enumerate(plan.steps) if step.stage.name in TRAININGS), default=-1)
    facts: dict[str, Any] = {}
    for step in plan.steps[: last + 1]:
        named = {**step.recipe["config"], "version": step.recipe["version"], "packages": step.recipe["packages"]}
        named |= {key: step.recipe[key] for key in ("identity", "code") if key in step.recipe}
        facts |= {f"{key} of {step.label}": value for key, value in named.items()}
        facts[f"fingerprint of {step.label}"] = step.fingerprint
    return facts


def _overrides() -> list[str]:
    """What was typed, or was put together by a sweeper for this job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def answered(arguments: Sequence[str]) -> str | None:
    """What is told instead of a run, where that is asked for: --help, --version, the shell's completion."""
    if {"-h", "--help"} & {*arguments}:
        from segslim.stages import STAGES

        return help_text(shutil.get_terminal_size().columns, {name: stage.does for name, stage in STAGES.items()})
    if "--version" in arguments:
        return version()
    if [*arguments] in (["--shell-completion", "install=bash"], ["-sc", "install=bash"]):
        return COMPLETION
    return None


@contextmanager
def exit_codes() -> Iterator[None]:
    """A user's mistake ends in its message and exit code 2, also where Hydra finds it; a defect keeps its traceback.

    A training that a signal has ended ends in one line too; its exit code is the shell's, 130 or 143.
    """
    full_errors = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints the error itself and exits with 1
    try:
        yield
    except Interrupted as stopped:
        complain(stopped)
        sys.exit(stopped.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if full_errors:
            raise
        complain(f"error: {in_one_line(error)}")
        sys.exit(2)
    except UserError as error:
        sys.exit(complain_of(error))
    except Exception as error:
        if not full_errors and refusal(error) is not None:
            sys.exit(complain_of(error))
        if full_errors:
            sys.excepthook = sys.__excepthook__  # in whose place a sweep puts one line (sweep.py)
        raise
