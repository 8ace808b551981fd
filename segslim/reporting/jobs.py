"""The jobs of a sweep as their folders show them, and the commands that were typed."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segslim.command_line import CONF
from segslim.errors import UserError
from segslim.files import read_plain
from segslim.reporting.metrics import Report, is_report

FAILURE, REPORT, OVERRIDES = "failure.json", "report.json", ".hydra/overrides.yaml"
SEARCH = "search.json"  # of a sweep that searches: {figures, directions, values: what each trial came to}
MOST_JOBS = 2_000  # that are listed; a file may say range(1000000000)
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True, eq=False)
class Job:
    """One job. `own` are those of its overrides that not all jobs have; `report` is there only when it is done."""

    name: str
    status: str  # done, failed, unfinished or not begun
    overrides: tuple[str, ...]
    command: str  # that runs it alone
    own: tuple[str, ...] = ()
    report: Report | None = None
    error: str = ""
    page: str | None = None  # the path of its report.html from the sweep's folder

    @property
    def beside(self) -> bool:
        """Whether it was timed while other jobs ran on its machine: its latency is no figure to compare by."""
        return bool(self.report and (self.report.get("timed") or {}).get("beside"))

    @property
    def label(self) -> str:
        """What distinguishes it from the others: the value alone where it is one key."""
        values = [text.partition("=")[2] for text in self.own]
        return values[0] if len(values) == 1 else f"#{self.name}"


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's and not a single run's."""
    return not (folder / REPORT).exists() and ((folder / "multirun.yaml").exists() or bool(_job_folders(folder)))


def read_jobs(folder: Path) -> list[Job]:
    """All jobs, by number. Raises UserError for a folder without any."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    jobs = [_read_job(path, folder) for path in _job_folders(folder)]
    begun, settings = {job.overrides for job in jobs}, sweep_settings(folder)
    jobs += [
        Job("-", "not begun", overrides, run_command(overrides, settings))
        for overrides in _planned_overrides(folder)
        if overrides not in begun
    ]
    if not jobs:
        raise UserError(f"{folder}: holds neither a run's report.json nor the jobs of a sweep")
    common = set.intersection(*(set(job.overrides) for job in jobs))
    return [replace(job, own=tuple(text for text in job.overrides if text not in common)) for job in jobs]


def common_overrides(jobs: Sequence[Job]) -> list[str]:
    """What all jobs have in common, in the order in which it was typed."""
    return [text for text in jobs[0].overrides if text not in jobs[0].own]


def run_command(overrides: Sequence[str], hydra: Mapping[str, Any] = MappingProxyType({})) -> str:
    """What is typed to run a job alone; `hydra`, the section of that name, tells where its config came from."""
    return shlex.join(["uv", "run", "run.py", *_config_options(hydra), *overrides])


def _config_options(hydra: Mapping[str, Any]) -> list[str]:
    """The options that are no overrides: without them, a config of the user's own is not found."""
    options = []
    for source in hydra.get("runtime", {}).get("config_sources", ()):
        if source["provider"] == "command-line":
            options.append(f"--config-dir={source['path']}")
        elif source["provider"] == "main" and Path(source["path"]).resolve() != CONF:
            options.append(f"--config-path={source['path']}")
    name = hydra.get("job", {}).get("config_name", "config")
    if name not in (None, "config"):
        options.append(f"--config-name={name}")
    typed = hydra.get("overrides", {}).get("hydra") or ()
    return [*options, *(text for text in typed if text.startswith("hydra.searchpath="))]


def search_course(folder: Path) -> dict[str, Any] | None:
    """What `SEARCH` holds, None where the sweep was no search."""
    course = _read_json(folder / SEARCH)
    try:
        return course and {
            "figures": [str(figure) for figure in course["figures"]],
            "directions": [str(direction) for direction in course["directions"]],
            "values": [[float(value) for value in values] for values in course["values"]],
        }
    except (KeyError, TypeError, ValueError):
        return None


def sweep_command(folder: Path) -> str:
    """What was typed to start the sweep."""
    return _sweep_command(sweep_settings(folder))


def _sweep_command(settings: Mapping[str, Any]) -> str:
    typed = settings.get("overrides", {})
    own = [text for text in typed.get("hydra") or () if not text.startswith(("hydra.mode=", "hydra.searchpath="))]
    return shlex.join(["uv", "run", "run.py", "-m", *_config_options(settings), *own, *(typed.get("task") or ())])


def _job_folders(folder: Path) -> list[Path]:
    found = {file.parent for name in (FAILURE, REPORT) for file in folder.glob(f"**/{name}")}
    found |= {file.parent.parent for file in folder.glob(f"**/{OVERRIDES}")}
    return sorted(found - {folder}, key=lambda path: (int(path.name) if path.name.isdigit() else 1 << 30, path))


def _read_job(path: Path, folder: Path) -> Job:
    failure, report = _read_json(path / FAILURE), _read_json(path / REPORT)
    report = report if report is None or is_report(report) else None
    if (path / OVERRIDES).exists():
        typed = _read(path / OVERRIDES)
    else:  # a report that was copied without Hydra's folder
        typed = next((record["overrides"] for record in (failure, report) if record and record.get("overrides")), ())
    overrides, name = tuple(map(str, typed if isinstance(typed, list) else ())), path.relative_to(folder).as_posix()
    command = run_command(overrides, hydra_section(path / ".hydra" / "hydra.yaml"))
    if failure is not None:
        command = str(failure.get("command") or command)
        return Job(name, "failed", overrides, command, error=str(failure.get("error", "")))
    if report is None:
        return Job(name, "unfinished", overrides, command)
    page = path / "report.html"
    link = page.relative_to(folder).as_posix() if page.exists() else None
    return Job(name, "done", overrides, command, report=report, page=link)


def _read_json(file: Path) -> dict[str, Any] | None:
    """None where the file is not there or was torn by a kill."""
    found = _read(file)
    return found if isinstance(found, dict) else None


def _read(file: Path) -> Any:
    try:
        return read_plain(file)
    except (OSError, ValueError):
        return None


def _planned_overrides(folder: Path) -> list[tuple[str, ...]]:
    """The overrides of every job that was to run. Known for Hydra's own sweeper alone: others decide on the way."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    hydra = sweep_settings(folder)
    if hydra.get("sweeper", {}).get("_target_") != BASIC_SWEEPER:
        return []
    typed = [f"{key}={value}" for key, value in (hydra["sweeper"].get("params") or {}).items()]
    typed += hydra.get("overrides", {}).get("task") or ()
    choices: dict[str, list[str]] = {}  # of a key that was given twice, the last counts
    try:
        for override in OverridesParser.create().parse_overrides(typed):
            key: Any = override.get_key_element()
            swept = override.is_sweep_override()
            values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
            choices[key] = [f"{key}={value}" for value in itertools.islice(values, MOST_JOBS)]
    except HydraException:
        return []
    return list(itertools.islice(itertools.product(*choices.values()), MOST_JOBS))


def sweep_settings(folder: Path) -> dict[str, Any]:
    """The section `hydra` of multirun.yaml."""
    return hydra_section(folder / "multirun.yaml")


def hydra_section(file: Path) -> dict[str, Any]:
    """The section `hydra` of a file that Hydra wrote, {} where there is none, or what is there is of another kind."""
    section: dict[str, Any] = (_read_json(file) or {}).get("hydra") or {}
    try:
        _sweep_command(section)
        dict(section.get("sweeper", {}).get("params") or {})
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return section
