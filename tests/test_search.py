"""Searches by Optuna: no setting twice, and a study that is kept goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.command import ROOT, segslim


def _search(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.searched", "-m", f"hydra.searchpath=[file://{ROOT / 'conf'}]", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True
    )


def _tried(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "tried.txt").read_text().splitlines()]


def test_no_setting_is_tried_twice_and_the_search_ends_with_the_last(tmp_path):
    answer = _search(tmp_path, "x=choice(1,2,5,7)", "hydra.sweeper.n_trials=9", "hydra.sweeper.sampler.seed=0")
    assert answer.returncode == 0, answer.stderr
    assert sorted(_tried(tmp_path)) == ["1", "2", "5", "7"] and "every setting" in answer.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert found == {"name": "optuna", "best_params": {"x": 2}, "best_value": 1.0}  # 7 fails
    assert sorted(json.loads((tmp_path / "sweep" / "search.json").read_text())["values"]) == [[1.0], [4.0], [4.0]]


@pytest.mark.parametrize("storage", [pytest.param("sqlite:///kept.db", marks=pytest.mark.long), "kept.journal"])
def test_a_search_that_is_kept_goes_on_with_settings_that_it_has_not_tried(tmp_path, storage):
    words = ("x=range(0,6)", "y=null", "hydra.sweeper.sampler.seed=0", f"hydra.sweeper.storage={storage}")
    for count in (2, 5, 5):
        answer = _search(tmp_path, *words, f"hydra.sweeper.n_trials={count}")
        assert answer.returncode == 0, answer.stderr
    tried = _tried(tmp_path)
    assert len(tried) == len(set(tried)) == 5
    assert "5 of 5 trials are there" in answer.stderr
    other = _search(tmp_path, "x=range(0,2)", f"hydra.sweeper.storage={storage}", "hydra.sweeper.n_trials=1")
    assert other.returncode == 0 and len(_tried(tmp_path)) == 6  # another search space is another study


def test_a_search_that_is_killed_does_the_trial_again(tmp_path):
    words = ("x=choice(1,2,5)", "hydra.sweeper.storage=kept.journal", "hydra.sweeper.n_trials=3")
    answer = _search(tmp_path, *words, DIE="2")
    assert answer.returncode == -signal.SIGKILL
    answer = _search(tmp_path, *words, DIE="2")
    assert answer.returncode == 0, answer.stderr
    assert sorted(_tried(tmp_path)) == ["1", "2", "2", "5"]


def test_trials_at_the_same_time_are_different_ones(tmp_path):
    answer = _search(tmp_path, "x=choice(1,2,5)", "y=choice(false,'a, b')", "hydra.sweeper.n_jobs=6")
    assert answer.returncode == 0, answer.stderr
    assert len({*(tmp_path / "tried.txt").read_text().splitlines()}) == 6


@pytest.mark.slow
def test_a_study_that_cannot_be_kept_is_told_in_one_line(tmp_path):
    answer = segslim("-m", "experiment=search_fastest", "hydra.sweeper.storage=sqlite:////none/x.db", cwd=tmp_path)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("error: hydra.sweeper.storage=sqlite:////none/x.db: ")
