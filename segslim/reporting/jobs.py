"""The jobs of a sweep, as their folders tell: done, failed, unfinished, or not even begun."""

import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segslim.errors import UserError
from segslim.reporting.artifacts import Report

FAILURE, REPORT, OVERRIDES = "failure.json", "report.json", ".hydra/overrides.yaml"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Job:
    """One job. `own` are those of its overrides that not all jobs have; `report` is there only when it is done."""

    name: str
    status: str  # done, failed, unfinished or not begun
    overrides: tuple[str, ...]
    own: tuple[str, ...] = ()
    report: Report | None = None
    error: str = ""
    command: str = ""
    page: str | None = None  # the path of its report.html from the sweep's folder

    @property
    def label(self) -> str:
        """What tells it from the others: the values alone where one key differs."""
        values = [text.partition("=")[2] for text in self.own]
        return values[0] if len(values) == 1 else f"#{self.name}"


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's and not a single run's."""
    return not (folder / REPORT).exists() and ((folder / "multirun.yaml").exists() or bool(_folders(folder)))


def read_jobs(folder: Path) -> list[Job]:
    """All jobs, by number. Raises UserError for a folder without any."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    jobs = [_job(path, folder) for path in _folders(folder)]
    begun = {job.overrides for job in jobs}
    planned = [typed for typed in _planned(folder) if typed not in begun]
    jobs += [Job("-", "not begun", typed, command=run_command(typed)) for typed in planned]
    if not jobs:
        raise UserError(f"{folder}: holds neither a run's report.json nor the jobs of a sweep")
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return [Job(**{**vars(job), "own": tuple(t for t in job.overrides if t not in common)}) for job in jobs]


def sweep_command(folder: Path) -> str:
    """What was typed to start the sweep."""
    typed = _settings(folder).get("hydra", {}).get("overrides", {})
    own = [text for text in typed.get("hydra") or () if not text.startswith("hydra.mode=")]
    return shlex.join(["uv", "run", "run.py", "-m", *own, *(typed.get("task") or ())])


def common_overrides(jobs: Sequence[Job]) -> list[str]:
    """What all jobs have in common, in the order in which it was typed."""
    return [text for text in jobs[0].overrides if text not in jobs[0].own]


def _folders(folder: Path) -> list[Path]:
    found = {file.parent for name in (FAILURE, REPORT) for file in folder.glob(f"*/{name}")}
    found |= {file.parent.parent for file in folder.glob(f"*/{OVERRIDES}")}
    return sorted(found, key=lambda path: (int(path.name) if path.name.isdigit() else 1 << 30, path.name))


def _job(path: Path, folder: Path) -> Job:
    failure, report = _read(path / FAILURE), _read(path / REPORT)
    overrides = _typed(path, failure, report)
    page = path / "report.html"
    link = page.relative_to(folder).as_posix() if page.exists() else None
    if failure is not None:
        command = str(failure.get("command") or run_command(overrides))
        return Job(path.name, "failed", overrides, error=str(failure.get("error", "")), command=command)
    if report is not None:
        return Job(path.name, "done", overrides, report=report, page=link, command=run_command(overrides))
    return Job(path.name, "unfinished", overrides, command=run_command(overrides))


def _typed(path: Path, *records: Mapping[str, Any] | None) -> tuple[str, ...]:
    file = path / OVERRIDES
    if file.exists():
        return tuple(map(str, yaml.safe_load(file.read_text(encoding="utf-8")) or ()))
    return next((tuple(map(str, r["overrides"])) for r in records if r and r.get("overrides")), ())


def _read(file: Path) -> dict[str, Any] | None:
    """A JSON file, or None where it is not there or was torn by a kill."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def run_command(overrides: Sequence[str]) -> str:
    """What is typed to run a job alone."""
    return shlex.join(["uv", "run", "run.py", *overrides])


def _planned(folder: Path) -> list[tuple[str, ...]]:
    """The overrides of every job that was to run, where Hydra's own sweeper multiplied them out: others decide as they
    go.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    hydra = _settings(folder).get("hydra", {})
    if hydra.get("sweeper", {}).get("_target_") != BASIC_SWEEPER:
        return []
    given = {**{k: str(v) for k, v in (hydra["sweeper"].get("params") or {}).items()}}
    typed = [f"{key}={value}" for key, value in given.items()] + list(hydra.get("overrides", {}).get("task") or ())
    choices: dict[str, list[str]] = {}  # of a key that was given twice, the last counts
    try:
        for override in OverridesParser.create().parse_overrides(typed):
            key = override.get_key_element()
            values = override.sweep_string_iterator() if override.is_sweep_override() else [_value(override)]
            choices[key] = [f"{key}={value}" for value in values]
    except HydraException:
        return []
    return list(itertools.product(*choices.values()))


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "multirun.yaml"
    return (yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None) or {}


def _value(override: Any) -> str:
    return str(override.get_value_element_as_str())
