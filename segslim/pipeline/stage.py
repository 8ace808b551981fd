"""A unit of work is one function, declared by `@stage`: what it gives, what of the config it reads.

    @stage(gives=Checkpoint, reads=["compress.ratio", "compress.align"])
    def prune(checkpoint: Checkpoint, importance: Importance, config, workspace) -> Checkpoint: ...

    @prune.check
    def _(config, earlier): ...      # raises UserError for what is bound to fail, before any work

Its parameters are its inputs, by the kind of artifact: `checkpoint` is the latest one, `baseline_checkpoint` the first
one, a parameter with a default is taken where an earlier stage gives it. `config` shows the declared keys alone (see
ConfigView), and `workspace` is where it works. It returns its artifact as a value.
"""

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segslim.files import read_plain

BASELINE = "baseline_"
_NOT_INPUTS = ("config", "workspace")


@dataclass(frozen=True)
class Workspace:
    """Where a stage works. What stands in `artifact` when it returns is committed, with the value that it returns."""

    artifact: Path
    scratch: Path  # survives a killed run, so that a stage can go on where it was; deleted at commit
    progress: Callable[[str, int, int], None]  # (what is being done, how many are done, of how many)
    measured: Callable[[int, Mapping[str, float]], None]  # (iteration, {name: value}): numbers on the way
    inputs: Mapping[str, Path] = field(default_factory=dict)  # the folder of each input
    later: "tuple[Stage, ...]" = ()  # the stages of the plan that are to come
    result: list[str] = field(default_factory=list)

    def summarize(self, text: str) -> None:
        """The stage's result in a few words, for the screen and the report; the last call counts."""
        self.result[:] = [text]


@dataclass(eq=False)
class Stage:
    """A declared stage. Calling it calls its function."""

    function: Callable[..., Any]
    gives: type | str
    reads: tuple[str, ...]
    ignores: tuple[str, ...]
    packages: tuple[str, ...]
    version: int
    checks: list[Callable[..., None]] = field(default_factory=list)
    network_checks: list[Callable[..., None]] = field(default_factory=list)
    does: str = ""
    dependency: Callable[[Any], Any] | None = None
    remarks: Callable[[Any, Any], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        self.name = self.function.__name__
        parameters = inspect.signature(self.function).parameters
        inputs = {name: parameter for name, parameter in parameters.items() if name not in _NOT_INPUTS}
        self.requires = tuple(name for name, parameter in inputs.items() if parameter.default is parameter.empty)
        self.accepts = tuple(name for name in inputs if name not in self.requires)
        self._parameters = frozenset(parameters)

    @property
    def kind(self) -> str:
        """What it gives, in one word: checkpoint, deployment, metrics, ..."""
        return self.gives if isinstance(self.gives, str) else getattr(self.gives, "kind", self.gives.__name__.lower())

    @property
    def module(self) -> str:
        return self.function.__module__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def check(self, function: Callable[..., None]) -> Callable[..., None]:
        """Decorates what raises UserError for a mistake that is known from the config and the machine alone.

        It takes `config`, all of it, and where it asks for it `earlier`, the names of the stages before this one.
        """
        self.checks.append(function)
        return function

    def check_network(self, function: Callable[..., None]) -> Callable[..., None]:
        """Decorates what raises UserError for a mistake that is known once the network is built, before it is trained.

        It takes by name what it asks for of `network`, `images` (how many there are to train on), `config`, `scratch`.
        """
        self.network_checks.append(function)
        return function

    def depends(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Decorates what gives, from all of the config, the rest that the result depends on: data, the machine."""
        self.dependency = function
        return function

    def remark(self, function: Callable[[Any, Any], Sequence[str]]) -> Callable[[Any, Any], Sequence[str]]:
        """Decorates what gives, from the stage's value and the config, what a user is told in every run, also where the
        value was made by an earlier one: sentences.
        """
        self.remarks = function
        return function

    def remarks_on(self, artifact: Path, config: Any) -> tuple[str, ...]:
        return tuple(self.remarks(load_artifact(self.gives, self.kind, artifact), config)) if self.remarks else ()

    def run_checks(self, config: Any, earlier: Sequence[str]) -> None:
        for function in self.checks:
            _call_by_names(function, {"config": config, "earlier": tuple(earlier)})

    def run_network_checks(self, named: Mapping[str, Any]) -> None:
        for function in self.network_checks:
            _call_by_names(function, named)

    def run(self, inputs: Mapping[str, Path], config: Any, workspace: Workspace) -> str:
        """Loads the inputs, calls the function, saves its value into the workspace; returns its result in words."""
        types = typing.get_type_hints(self.function)
        values = {name: load_artifact(types.get(name, dict), name, folder) for name, folder in inputs.items()}
        given = {"config": config, "workspace": workspace}
        value = self.function(**values, **{name: given[name] for name in _NOT_INPUTS if name in self._parameters})
        save_artifact(value, self.kind, workspace.artifact)
        return workspace.result[0] if workspace.result else ""


def stage(
    *,
    gives: type | str,
    reads: Sequence[str] = (),
    ignores: Sequence[str] = (),
    packages: Sequence[str] = (),
    version: int = 1,
    does: str = "",
) -> Callable[[Callable[..., Any]], Stage]:
    """Declares a function as a stage, called by its name in `compress.stages`.

    Args:
        gives: a class with `load(folder)` and `save(folder)`, as Checkpoint; or a word, for a value that is plain JSON.
        reads: the config keys that its result depends on; a key stands for all below it.
        ignores: keys that it may read although its result does not depend on them, as a number of threads.
        packages: installed packages whose version the result depends on.
        version: is raised when the same inputs give another result.
        does: what it does in a few words, for the screen; its name where there are none.
    """

    def declare(function: Callable[..., Any]) -> Stage:
        return Stage(function, gives, tuple(reads), tuple(ignores), tuple(packages), version, does=does)

    return declare


def _call_by_names(function: Callable[..., None], named: Mapping[str, Any]) -> None:
    function(**{name: named[name] for name in inspect.signature(function).parameters})


def bare(kind: str) -> str:
    """A kind without `baseline_`."""
    return kind.removeprefix(BASELINE)


def load_artifact(annotation: Any, kind: str, folder: Path) -> Any:
    """The value in an artifact's folder, by a parameter's annotation: a class with `load`, Path, or plain JSON."""
    choices = [annotation, *typing.get_args(annotation)]
    if Path in choices:
        return folder
    loader = next((choice for choice in choices if hasattr(choice, "load")), None)
    return loader.load(folder) if loader is not None else read_json(folder, kind)


def save_artifact(value: Any, kind: str, folder: Path) -> None:
    if hasattr(value, "save"):
        value.save(folder)
    elif value is not None:
        (folder / f"{kind}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(folder: Path, kind: str) -> Any:
    """A value that is plain JSON. Raises OSError or ValueError where there is none."""
    return read_plain(folder / f"{bare(kind)}.json")
