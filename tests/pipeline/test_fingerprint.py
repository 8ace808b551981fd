"""What makes two pieces of work the same: a stage cannot depend on what its fingerprint does not hold."""

import sys
from dataclasses import replace

import pytest

from segslim.pipeline.fingerprint import ConfigView, UndeclaredKeyError, config_slice
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.stage import stage
from segslim.pipeline.store import Store
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure"]


def _fingerprints(folder, stages=toy.STAGES, **changes):
    steps = plan(toy.strategy(CHAIN, toy.config(folder, **changes)), stages).steps
    return {step.label: step.fingerprint for step in steps}


def _changed(folder, before, **changes):
    after = _fingerprints(folder, **changes)
    return {label for label in after if after[label] != before[label]}


def test_a_changed_key_changes_what_reads_it_and_all_that_follows(tmp_path):
    before = _fingerprints(tmp_path)
    assert _changed(tmp_path, before) == set()
    assert _changed(tmp_path, before, note="something no stage reads") == set()
    assert _changed(tmp_path, before, factor=4) == {"scale", "measure"}
    assert _changed(tmp_path, before, number=5) == {"make", "scale", "measure"}


def test_a_new_version_a_dependency_and_a_package_change_the_fingerprint(tmp_path):
    before = _fingerprints(tmp_path)
    for change in ({"version": 2}, {"dependency": lambda config: "other data"}, {"packages": ("pytest",)}):
        stages = {**toy.STAGES, "scale": replace(toy.scale, **change)}
        assert _changed(tmp_path, before, stages=stages) == {"scale", "measure"}, change


def test_ignored_keys_are_not_in_the_slice():
    config = {"train": {"iters": 3, "save": {"interval": 5, "all": True}}, "seed": 0}
    assert config_slice(config, ("train", "seed"), ignores=("train.save",)) == {"train.iters": 3, "seed": 0}


def test_a_stage_that_reads_a_key_which_it_does_not_declare_fails_by_the_keys_name(tmp_path):
    @stage(gives="checkpoint", reads=["number"])
    def careless(config):
        return config["number"] * config["factor"]

    with pytest.raises(UndeclaredKeyError, match="'careless' reads factor"):
        run(plan([("careless", toy.config(tmp_path))], {"careless": careless}), Store(tmp_path), toy.Silent())


def test_a_view_shows_the_declared_keys_and_remembers_which_were_read():
    @stage(gives="metrics", reads=["train.iters", "data"], ignores=["train.threads"])
    def reader(config): ...

    config = {"train": {"iters": 3, "threads": 2, "rate": 0.1}, "data": {"size": [4, 4], "name": "x"}}
    view = ConfigView(config, reader)
    assert (view.train.iters, view.train["threads"], view.data["name"]) == (3, 2, "x")
    assert view.used == {"train.iters", "train.threads", "data"}
    with pytest.raises(UndeclaredKeyError, match=r"train\.rate"):
        view.train["rate"]


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_a_file_that_the_config_names_counts_by_its_content(tmp_path, nested):
    file = tmp_path / "weights.pdparams"
    file.write_bytes(b"one")

    def named(path):
        return [{"pretrained": str(path)}] if nested else str(path)

    before = _fingerprints(tmp_path, factor=named(file))
    moved = tmp_path / "elsewhere.pdparams"
    moved.write_bytes(b"one")
    assert _changed(tmp_path, before, factor=named(moved)) == set()
    file.write_bytes(b"two")
    assert _changed(tmp_path, before, factor=named(file)) == {"scale", "measure"}


def test_code_of_the_users_own_counts_with_all_that_it_imports_of_the_users_own(tmp_path, monkeypatch):
    package = tmp_path / "ours"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helpers.py").write_text("FACTOR = 2\n")
    (package / "unrelated.py").write_text("x = 1\n")
    (package / "losses.py").write_text("import json\ndef late():\n    from .helpers import FACTOR\n    return FACTOR\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = _fingerprints(tmp_path, factor="ours.losses.late")
    assert before == _fingerprints(tmp_path, factor="ours.losses.late")
    (package / "unrelated.py").write_text("x = 2\n")
    assert _changed(tmp_path, before, factor="ours.losses.late") == set()
    (package / "helpers.py").write_text("FACTOR = 3\n")
    assert _changed(tmp_path, before, factor="ours.losses.late") == {"scale", "measure"}
    assert "ours" not in sys.modules  # nothing was imported to find out
