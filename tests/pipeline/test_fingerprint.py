from dataclasses import replace

from segslim.pipeline.fingerprint import config_slice
from segslim.pipeline.plan import plan
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure"]


def _fingerprints(folder, stages=toy.STAGES, **changes):
    return {
        step.label: step.fingerprint for step in plan(toy.strategy(CHAIN, toy.config(folder, **changes)), stages).steps
    }


def _changed(folder, before, **changes):
    after = _fingerprints(folder, **changes)
    return {label for label in after if after[label] != before[label]}


def test_a_changed_key_changes_what_reads_it_and_all_that_follows(tmp_path):
    before = _fingerprints(tmp_path)
    assert _changed(tmp_path, before) == set()
    assert _changed(tmp_path, before, note="something no stage reads") == set()
    assert _changed(tmp_path, before, factor=4) == {"scale", "measure"}
    assert _changed(tmp_path, before, number=5) == {"make", "scale", "measure"}


def test_a_new_version_an_identity_and_a_package_change_the_fingerprint(tmp_path):
    before = _fingerprints(tmp_path)
    for change in ({"version": 2}, {"identity": lambda config: "other data"}, {"packages": ("pytest",)}):
        stages = {**toy.STAGES, "scale": replace(toy.STAGES["scale"], **change)}
        assert _changed(tmp_path, before, stages=stages) == {"scale", "measure"}, change


def test_ignored_keys_are_not_in_the_slice():
    config = {"train": {"iters": 3, "save": {"interval": 5, "all": True}}, "seed": 0}
    assert config_slice(config, ("train", "seed"), ignores=("train.save",)) == {"train.iters": 3, "seed": 0}
