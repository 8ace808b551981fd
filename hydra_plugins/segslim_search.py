"""Optuna chooses the jobs of a sweep (conf/hydra/sweeper/optuna.yaml): no setting twice, and a search that is kept in
a file goes on from what it has found.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 10  # of the sampler to find a setting that was not tried, before one is drawn
MOST_DRAWN_FROM = 100_000  # settings of a search space


class OptunaSweeper(Sweeper):
    """Its arguments are the keys of conf/hydra/sweeper/optuna.yaml."""

    def __init__(
        self,
        sampler: Any,
        direction: Any,
        n_trials: int,
        n_jobs: int,
        params: Any,
        storage: str | None = None,
        study_name: str | None = None,
        max_failure_rate: float = 1.0,
    ) -> None:
        self.sampler, self.storage, self.study_name = sampler, storage, study_name
        self.directions = [direction] if isinstance(direction, str) else list(direction)
        self.n_trials, self.n_jobs, self.max_failure_rate = n_trials, n_jobs, max_failure_rate
        plain: Any = OmegaConf.to_container(params) if OmegaConf.is_config(params) else params
        self.params: dict[str, Any] = plain or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config: Any = config
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials, n_jobs at a time, until the study has `n_trials`; writes optimization_results.yaml.

        Raises UserError for what cannot be searched or kept, and where too many trials of a batch fail.
        """
        from segslim.errors import UserError
        from segslim.streams import complain

        parser = OverridesParser.create()
        typed = {
            override.get_key_element(): override
            for override in parser.parse_overrides(
                [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
            )
        }
        space = {key: _distribution(override) for key, override in typed.items() if override.is_sweep_override()}
        fixed = [f"{key}={one.get_value_element_as_str()}" for key, one in typed.items() if key not in space]
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        study, number, failures = self._study(space, fixed), 0, 0
        if done := len(_complete(study)):
            complain(f"{self.storage}: {done} of {self.n_trials} trials are there, and the search goes on")
        while (left := self.n_trials - len(_complete(study)) - failures) > 0:
            trials = [trial for _ in range(min(left, self.n_jobs)) if (trial := self._new_trial(study, space))]
            if not trials:
                complain("every setting has been tried: the search ends")
                break
            jobs = [[*(f"{key}={value}" for key, value in trial.params.items()), *fixed] for trial in trials]
            for at, trial in enumerate(trials, number):
                trial.set_user_attr("job", at)
            returned = self.launcher.launch(jobs, initial_job_idx=number)
            number += len(trials)
            failed = sum(not self._told(study, *pair) for pair in zip(trials, returned, strict=True))
            failures += failed
            self._write(study)
            if failed > self.max_failure_rate * len(trials):
                raise UserError(
                    f"{failed} of {len(trials)} trials failed: more than hydra.sweeper.max_failure_rate="
                    f"{self.max_failure_rate} lets go by"
                )
        self._write(study)
        if not _complete(study):
            raise RuntimeError("no trial came to anything")  # the jobs have said why (segslim.sweep.why_ended)

    def _study(self, space: Mapping[str, Any], fixed: Sequence[str]) -> "optuna.Study":
        import optuna

        from segslim.errors import UserError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage: Any = self.storage
        if storage is not None and "://" not in storage:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        searched = json.dumps([self.directions, {key: repr(one) for key, one in space.items()}, sorted(fixed)])
        name = self.study_name or f"segslim-{hashlib.sha256(searched.encode()).hexdigest()[:8]}"
        try:
            study = optuna.create_study(
                storage=storage, sampler=self.sampler, study_name=name, directions=self.directions, load_if_exists=True
            )
        except Exception as error:  # each kind of storage has its own
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(
                f"hydra.sweeper.storage={self.storage}: {reason}; give a file, or sqlite:///FILE.db"
            ) from error
        for trial in study.trials:  # of a search that was killed
            if trial.state == optuna.trial.TrialState.RUNNING:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params, skip_if_exists=True)
        self._failed: set[str] = set()
        self._random = random.Random(name)
        return study

    def _new_trial(self, study: "optuna.Study", space: Mapping[str, Any]) -> "optuna.Trial | None":
        """One of a setting that was not tried; None where there is none left. What fails is not tried again by this
        command, but by a later one.
        """
        import optuna

        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
        for attempt in range(ATTEMPTS + 2):
            tried = {_setting(trial.params) for trial in study.get_trials(deepcopy=False, states=states)} | self._failed
            if attempt == ATTEMPTS:
                left = [setting for setting in _settings(space) if _setting(setting) not in tried]
                if not left:
                    return None
                study.enqueue_trial(self._random.choice(left))
            trial = study.ask(dict(space))
            if _setting(trial.params) not in tried:
                return trial
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def _told(self, study: "optuna.Study", trial: "optuna.Trial", job: Any) -> bool:
        """Tells the study what a trial came to; whether it came to anything."""
        import optuna

        value = job.return_value
        values = (
            [] if value is None else [float(one) for one in (value if isinstance(value, (tuple, list)) else [value])]
        )
        if len(values) == len(self.directions):
            study.tell(trial, values)
            return True
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._failed.add(_setting(trial.params))
        return False

    def _write(self, study: "optuna.Study") -> None:
        """optimization_results.yaml, and for sweep.html the course of the search."""
        from segslim.reporting.jobs import SEARCH

        trials = _complete(study)
        best: list[dict[str, Any]] = [
            {"params": {key: _plain(value) for key, value in trial.params.items()}, "values": list(trial.values)}
            for trial in (study.best_trials if trials else [])
        ]
        results: dict[str, Any] = {"name": "optuna", "solutions": best}
        if len(self.directions) == 1 and best:
            results = {"name": "optuna", "best_params": best[0]["params"], "best_value": best[0]["values"][0]}
        OmegaConf.save(OmegaConf.create(results), self.folder / "optimization_results.yaml")
        figures = [str(figure) for figure in OmegaConf.select(self.config, "objective.figures") or []]
        course = {"figures": figures, "directions": self.directions, "values": [trial.values for trial in trials]}
        (self.folder / SEARCH).write_text(json.dumps(course) + "\n", encoding="utf-8")


def _complete(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _setting(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _distribution(override: Override) -> "optuna.distributions.BaseDistribution":
    """What is typed as choice(...), range(...) or interval(...). Choices are texts, as a job is given them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values = [yaml.safe_load(text) for text in override.sweep_string_iterator()]
        if all(isinstance(one, int) for one in values):
            return IntDistribution(values[0], values[-1], step=max(1, int(value.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _settings(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All of a finite search space, as far as MOST_DRAWN_FROM."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    values: list[Sequence[Any]] = []
    for one in space.values():
        if isinstance(one, CategoricalDistribution):
            values.append(one.choices)
        elif isinstance(one, IntDistribution) and not one.log:
            values.append(range(one.low, one.high + 1, one.step))
        else:
            return []
    combined = itertools.islice(itertools.product(*values), MOST_DRAWN_FROM)
    return [dict(zip(space, setting, strict=True)) for setting in combined]


def _plain(value: Any) -> Any:
    """A choice as what its text means: "0.2" -> 0.2."""
    return yaml.safe_load(value) if isinstance(value, str) else value
