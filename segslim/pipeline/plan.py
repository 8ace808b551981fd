"""config -> Plan: the steps of a strategy in order, each with its inputs and its fingerprint.

A strategy that would ship or judge something else than it lists is refused here, for every stage alike: what a stage
makes is used by a later one or is a result, and things that belong together come from the same work.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segslim.errors import UserError
from segslim.pipeline.fingerprint import fingerprint, recipe
from segslim.pipeline.stage import BASELINE, Stage, bare

BASELINE_LABEL = "baseline "


@dataclass(frozen=True)
class Step:
    """A stage with its place in one plan."""

    label: str
    stage: Stage
    config: Any = field(repr=False)  # all of the config that this step's stage sees a part of
    inputs: Mapping[str, "Step"] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)  # all that its result depends on, in the clear
    fingerprint: str

    @property
    def words(self) -> str:
        """What it does, as the screen shows it."""
        of_baseline = ", baseline" if self.label.startswith(BASELINE_LABEL) else ""
        return (self.stage.does or self.stage.name) + of_baseline

    @property
    def lineage(self) -> dict[str, "Step"]:
        """The step of each kind that this one says something of, directly or by its inputs: up to a checkpoint, which
        is a thing of its own whatever it was made from. The baseline's are left out.
        """
        if self.stage.kind == "checkpoint":
            return {}
        inputs = {kind: step for kind, step in self.inputs.items() if not kind.startswith(BASELINE)}
        above = {kind: step for parent in inputs.values() for kind, step in parent.lineage.items()}
        return {**above, **inputs}


@dataclass(frozen=True)
class Plan:
    """The steps in the order in which they run, and the last step that gives each kind."""

    steps: tuple[Step, ...]
    results: Mapping[str, Step]

    def made_by(self, names: Collection[str]) -> set[str]:
        """The fingerprints of the steps of these stages, and of all that is made from what they give."""
        found: set[str] = set()
        for step in self.steps:
            if step.stage.name in names or any(parent.fingerprint in found for parent in step.inputs.values()):
                found.add(step.fingerprint)
        return found


def plan(strategy: Iterable[tuple[str, Any]], stages: Mapping[str, Stage], wanted: Iterable[str] = ()) -> Plan:
    """Resolves a strategy, the names of its stages in order and the config that each of them sees, into steps.

    Each stage takes the latest artifact of each kind before it. What is `wanted` of the baseline, at the end or by a
    stage, is made by the same stages from the first checkpoint; where that is the same work, it is the same step. A
    wanted kind that no stage of the strategy gives is left out.

    Raises UserError for a stage that does not exist, one that stands before what it needs, one whose inputs do not
    belong together, and one that works for nothing.
    """
    return _Planner(tuple(strategy), stages).plan(tuple(wanted))


class _Planner:
    def __init__(self, strategy: tuple[tuple[str, Any], ...], stages: Mapping[str, Stage]):
        for name, _ in strategy:
            if name not in stages:
                raise UserError(f"compress.stages: there is no stage '{name}'; the stages are {', '.join(stages)}")
        self._chain = [(stages[name], config) for name, config in strategy]
        self._dependencies: dict[tuple[str, int], Any] = {}  # by stage and config: some read every file of a data set
        self._steps: dict[str, Step] = {}
        self._latest: dict[str, Step] = {}
        self._baseline: dict[str, Step] = {}

    def plan(self, wanted: tuple[str, ...]) -> Plan:
        for position, (stage, config) in enumerate(self._chain):
            stage.run_checks(config, [earlier.name for earlier, _ in self._chain[:position]])
            inputs = {kind: self._find(kind, needed_by=stage) for kind in stage.requires}
            inputs |= self._accepted(stage, inputs)
            _check_inputs_belong_together(inputs, stage)
            step = self._add(stage, config, inputs, stage.name)
            self._latest[stage.kind] = step
            if stage.kind == "dataset":  # both networks are judged on the latest
                self._baseline["dataset"] = step
            elif stage.kind == "checkpoint":
                self._baseline.setdefault("checkpoint", step)
        given = {stage.kind for stage, _ in self._chain}
        found = {kind: self._find(kind, needed_by=None) for kind in wanted if bare(kind) in given}
        plan = Plan(tuple(self._steps.values()), {**self._latest, **found})
        self._check_results(plan, [kind for kind in ("checkpoint", *wanted) if kind in given])
        return plan

    def _find(self, kind: str, needed_by: Stage | None) -> Step:
        found = self._of_baseline(bare(kind)) if kind != bare(kind) else self._latest.get(kind)
        if found is None:
            needs = f"stage '{needed_by.name}' needs {_one(kind)}" if needed_by else f"{_one(kind)} is needed"
            raise UserError(f"compress.stages: {needs}, and no stage before it gives one")
        return found

    def _accepted(self, stage: Stage, inputs: Mapping[str, Step]) -> dict[str, Step]:
        """What it takes where it is there. Its own result for the baseline only where that is of other inputs."""
        found = {kind: self._latest[kind] for kind in stage.accepts if kind in self._latest}
        for kind in (kind for kind in stage.accepts if kind != bare(kind)):
            if bare(kind) == stage.kind and all(self._of_baseline(bare(k)) is inputs[k] for k in stage.requires):
                continue  # it is the baseline that it works on
            step = self._of_baseline(bare(kind))
            if step is not None:
                found[kind] = step
        return found

    def _of_baseline(self, kind: str) -> Step | None:
        if kind not in self._baseline:
            maker = next(((stage, config) for stage, config in self._chain if stage.kind == kind), None)
            inputs = {needed: self._of_baseline(needed) for needed in maker[0].requires} if maker else {}
            if maker is None or None in inputs.values():
                return None
            self._baseline[kind] = self._add(*maker, inputs, BASELINE_LABEL + maker[0].name)  # type: ignore[arg-type]
        return self._baseline[kind]

    def _add(self, stage: Stage, config: Any, inputs: dict[str, Step], label: str) -> Step:
        parents = {kind: step.fingerprint for kind, step in inputs.items()}
        depends_on = recipe(stage, config, parents, self._dependency(stage, config))
        key = fingerprint(depends_on)
        return self._steps.setdefault(key, Step(self._unique(label), stage, config, inputs, depends_on, key))

    def _dependency(self, stage: Stage, config: Any) -> Any:
        asked = (stage.name, id(config))
        if stage.dependency and asked not in self._dependencies:
            self._dependencies[asked] = stage.dependency(config)
        return self._dependencies.get(asked)

    def _unique(self, label: str) -> str:
        taken = {step.label for step in self._steps.values()}
        numbered = (f"{label} {n}" for n in range(2, len(taken) + 3))
        return label if label not in taken else next(name for name in numbered if name not in taken)

    def _check_results(self, plan: Plan, kinds: list[str]) -> None:
        """What is reported is of the latest of everything, and no stage has worked for nothing."""
        for kind in kinds:
            for above, step in self._latest[kind].lineage.items():
                latest = self._latest[above]
                if above in kinds and above != kind and step is not latest:
                    raise UserError(
                        f"compress.stages: '{self._latest[kind].stage.name}' stands before '{latest.stage.name}' and "
                        f"would not be of its {above}: put it after"
                    )
        used = {parent.fingerprint for step in plan.steps for parent in step.inputs.values()}
        used |= {step.fingerprint for step in plan.results.values()}
        idle = next((step for step in plan.steps if step.fingerprint not in used), None)
        if idle is not None:
            raise UserError(
                f"compress.stages: nothing uses the {idle.stage.kind} of '{idle.label}', since "
                f"'{plan.results[idle.stage.kind].label}' gives another: leave one of them out"
            )


def _check_inputs_belong_together(inputs: Mapping[str, Step], stage: Stage) -> None:
    """Scores of an earlier checkpoint say nothing of a later one's channels, nor a file's engine of another file."""
    for kind, step in inputs.items():
        for above, made_from in step.lineage.items():
            if not kind.startswith(BASELINE) and above in inputs and above != kind and made_from is not inputs[above]:
                raise UserError(
                    f"compress.stages: '{stage.name}' would take the {kind} of another {above} than that of "
                    f"'{inputs[above].label}': put '{step.stage.name}' between them"
                )


def _one(kind: str) -> str:
    words = bare(kind)
    if words.endswith("s"):
        return words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
