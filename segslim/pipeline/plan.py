"""config -> Plan: the steps of a strategy in order, each with its inputs and its fingerprint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segslim.errors import UserError
from segslim.pipeline.fingerprint import fingerprint, recipe
from segslim.pipeline.stage import BASELINE, Stage


@dataclass(frozen=True)
class Step:
    """A stage with its place in one plan."""

    label: str
    stage: Stage
    config: Any = field(repr=False)  # what this step sees of the settings
    inputs: Mapping[str, "Step"] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)  # all that its result depends on, in the clear
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """The steps in the order in which they run, and the last step that gives each kind."""

    steps: tuple[Step, ...]
    results: Mapping[str, Step]


def plan(strategy: Iterable[tuple[str, Any]], stages: Mapping[str, Stage], wanted: Iterable[str] = ()) -> Plan:
    """Resolves a strategy, the names of its stages in order and the config that each of them sees, into steps.

    Each stage takes the latest artifact of each kind before it. What is `wanted` of the baseline, at the end or by a
    stage, is made by the same stages from the first checkpoint; where that is the same work, it is the same step. A
    wanted kind that no stage of the strategy gives is left out.

    Raises UserError for a stage that does not exist, or one that stands before what it needs.
    """
    return _Planner(tuple(strategy), stages).plan(tuple(wanted))


class _Planner:
    def __init__(self, strategy: tuple[tuple[str, Any], ...], stages: Mapping[str, Stage]):
        for name, _ in strategy:
            if name not in stages:
                raise UserError(f"compress.stages: there is no stage '{name}'; the stages are {', '.join(stages)}")
        self._chain = [(stages[name], config) for name, config in strategy]
        self._identities: dict[tuple[str, int], Any] = {}  # by stage and config: some read every file of a data set
        self._steps: dict[str, Step] = {}
        self._latest: dict[str, Step] = {}
        self._baseline: dict[str, Step] = {}

    def plan(self, wanted: tuple[str, ...]) -> Plan:
        for stage, config in self._chain:
            if stage.check:
                stage.check(config)
            inputs = {kind: self._find(kind, needed_by=stage) for kind in stage.takes}
            inputs |= {kind: self._latest[kind] for kind in stage.may_take if kind in self._latest}
            step = self._add(stage, config, inputs, stage.name)
            self._latest[stage.gives] = step
            if stage.gives in ("dataset", "checkpoint"):
                self._baseline.setdefault(stage.gives, step)
        given = {stage.gives for stage, _ in self._chain}
        found = {kind: self._find(kind, needed_by=None) for kind in wanted if kind.removeprefix(BASELINE) in given}
        return Plan(tuple(self._steps.values()), {**self._latest, **found})

    def _find(self, kind: str, needed_by: Stage | None) -> Step:
        bare = kind.removeprefix(BASELINE)
        found = self._of_baseline(bare) if bare != kind else self._latest.get(kind)
        if found is None:
            needs = f"stage '{needed_by.name}' needs {_one(bare)}" if needed_by else f"{_one(bare)} is needed"
            raise UserError(f"compress.stages: {needs}, and no stage before it gives one")
        return found

    def _of_baseline(self, kind: str) -> Step | None:
        if kind not in self._baseline:
            maker = next(((stage, config) for stage, config in self._chain if stage.gives == kind), None)
            inputs = {take: self._of_baseline(take) for take in maker[0].takes} if maker else {}
            if maker is None or None in inputs.values():
                return None
            self._baseline[kind] = self._add(*maker, inputs, BASELINE + maker[0].name)  # type: ignore[arg-type]
        return self._baseline[kind]

    def _add(self, stage: Stage, config: Any, inputs: dict[str, Step], label: str) -> Step:
        parents = {kind: step.fingerprint for kind, step in inputs.items()}
        depends_on = recipe(stage, config, parents, self._identity(stage, config))
        key = fingerprint(depends_on)
        return self._steps.setdefault(key, Step(self._unique(label), stage, config, inputs, depends_on, key))

    def _identity(self, stage: Stage, config: Any) -> Any:
        asked = (stage.name, id(config))
        if stage.identity and asked not in self._identities:
            self._identities[asked] = stage.identity(config)
        return self._identities.get(asked)

    def _unique(self, label: str) -> str:
        taken = {step.label for step in self._steps.values()}
        numbered = (f"{label} {n}" for n in range(2, len(taken) + 3))
        return label if label not in taken else next(name for name in numbered if name not in taken)


def _one(kind: str) -> str:
    return kind if kind.endswith("s") else f"a {kind}"
