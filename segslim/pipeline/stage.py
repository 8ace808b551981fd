"""What the pipeline knows of a stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASELINE = "baseline "


@dataclass(frozen=True)
class Stage:
    """A stage: its name, what it takes, gives and reads, and the function that does it.

    The function is `run(inputs, config, workspace) -> str`: it reads the artifacts in `inputs` (a folder for each
    kind in `takes`), writes its own into `workspace.artifact`, and returns its result in a few words.

    A kind is a word for an artifact: dataset, checkpoint, deployment ... `takes` names the kinds it needs, `may_take`
    those it uses where a stage before it gives them; a kind with `baseline ` before it is that of the first checkpoint,
    the network before any compression.
    """

    name: str
    takes: tuple[str, ...]
    gives: str
    reads: tuple[str, ...]  # the config keys that its result depends on
    function: str  # "package.module:function", imported only when it has to run
    may_take: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()  # keys below `reads` that do not change the result
    packages: tuple[str, ...] = ()  # installed packages whose version its result depends on
    identity: Callable[[Any], Any] | None = None  # what else it depends on: files, the machine
    check: Callable[[Any], None] | None = None  # raises UserError for what is known to fail before any work starts
    version: int = 1  # raise it when the same inputs give another result


@dataclass(frozen=True)
class Workspace:
    """Where a stage works. What stands in `artifact` when it returns is committed."""

    artifact: Path
    scratch: Path  # survives a killed run, so that a stage can go on where it was; deleted at commit
    progress: Callable[[str, int, int], None]  # (what is being done, how many are done, of how many)
    measured: Callable[[int, Mapping[str, float]], None]  # (iteration, {name: value}): numbers on the way
