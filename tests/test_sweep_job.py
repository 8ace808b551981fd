"""One job of a sweep: what it returns, what it writes when it fails, which cores it has."""

import json
import math
import os

import pytest
from omegaconf import OmegaConf

from segslim.errors import UserError
from segslim.hardware import cores
from segslim.sweep import end_sharing, own_cores, run_job, share

BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
JOBLIB = {"_target_": "hydra_plugins.segslim_launcher.JoblibLauncher", "n_jobs": 2}
RAY = {"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", "ray": {"remote": {}}}
SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"}

needs_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="there is one core only"
)


def _hydra(folder, launcher=BASIC, **runtime):
    share(folder.parent, folder.parent / "store")
    return OmegaConf.create(
        {
            "overrides": {"task": ["compress=prune", "dataset.root=/my data"], "hydra": []},
            "runtime": {"output_dir": str(folder), **runtime},
            "launcher": launcher,
            "sweep": {"dir": str(folder.parent)},
            "job": {"num": 3, "config_name": "config"},
        }
    )


def test_a_job_returns_its_objective_or_none_where_a_figure_was_not_measured(tmp_path):
    assert run_job(lambda: 0.5, _hydra(tmp_path)) == 0.5
    assert run_job(lambda: (0.5, 3.0), _hydra(tmp_path)) == (0.5, 3.0)
    assert run_job(lambda: (0.5, math.nan), _hydra(tmp_path)) is None
    assert not list(tmp_path.iterdir())


def _mistake():
    raise UserError("train.checkpoint=none: cannot be read")


def _defect():
    raise KeyError("channels")


def test_a_job_that_fails_writes_why_and_the_command_that_runs_it_alone(tmp_path, capsys):
    assert run_job(_mistake, _hydra(tmp_path)) is None
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure == {
        "error": "train.checkpoint=none: cannot be read",
        "command": "uv run run.py compress=prune 'dataset.root=/my data'",
        "overrides": ["compress=prune", "dataset.root=/my data"],
        "traceback": None,
    }
    assert failure["error"] in capsys.readouterr().err


def test_the_command_finds_the_configs_that_the_sweep_found(tmp_path):
    mine = {"provider": "command-line", "path": "/mine/conf", "schema": "file"}
    run_job(_mistake, _hydra(tmp_path, config_sources=[mine]))
    command = json.loads((tmp_path / "failure.json").read_text())["command"]
    assert command == "uv run run.py --config-dir=/mine/conf compress=prune 'dataset.root=/my data'"


def test_a_defect_keeps_its_traceback_and_a_job_that_then_succeeds_leaves_no_failure(tmp_path):
    run_job(_defect, _hydra(tmp_path))
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["error"] == "KeyError: 'channels'" and "_defect" in failure["traceback"]
    run_job(lambda: 0.5, _hydra(tmp_path))
    assert not (tmp_path / "failure.json").exists()


@needs_cores
@pytest.mark.parametrize("launcher", [JOBLIB, RAY], ids=["joblib", "ray"])
def test_jobs_beside_each_other_have_cores_of_their_own_and_as_many(launcher):
    with own_cores(launcher):
        first = os.sched_getaffinity(0)
        assert len(first) < os.cpu_count()
    every = os.sched_getaffinity(0)
    assert first < every


@needs_cores
def test_a_job_keeps_to_the_cores_that_slurm_gave_it(monkeypatch):
    """Without task/affinity and task/cgroup Slurm lets it use all of them."""
    assert cores() > 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores() == 1
    with own_cores(SLURM):
        assert len(os.sched_getaffinity(0)) == 1


@needs_cores
def test_a_job_alone_has_all_cores():
    every = os.sched_getaffinity(0)
    with own_cores(BASIC):
        assert os.sched_getaffinity(0) == every


def test_a_job_on_a_host_that_does_not_see_the_sweep_or_its_store_says_so(tmp_path):
    hydra, store = _hydra(tmp_path / "sweep" / "0"), tmp_path / "sweep" / "store"
    (tmp_path / "sweep" / "0").mkdir()
    assert run_job(lambda: 0.5, hydra, store) == 0.5
    (mark,) = (store / "runs").iterdir()
    mark.unlink()
    assert run_job(lambda: 0.5, hydra, store) is None
    failure = json.loads((tmp_path / "sweep" / "0" / "failure.json").read_text())
    assert failure["error"].startswith(f"store={store}: this job's host, ")
    end_sharing(tmp_path / "sweep")
    assert run_job(lambda: 0.5, hydra, store) == 0.5  # of a command that was stopped, whose jobs went on
    (tmp_path / "sweep" / "sweep.json").unlink()
    with pytest.raises(RuntimeError, match=rf"hydra\.sweep\.dir={tmp_path}/sweep: .* host"):
        run_job(lambda: 0.5, hydra, store)
