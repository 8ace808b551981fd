from dataclasses import replace

from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.store import explain, inventory
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure", "compare"]


def _plan(folder, **changes):
    return plan(toy.strategy(CHAIN, toy.config(folder, **changes)), toy.STAGES)


def _made(folder, **changes):
    run(_plan(folder, **changes), Store(folder / "store"), toy.Silent())


def _explained(folder, **changes):
    store = Store(folder / "store")
    explained = explain(_plan(folder, **changes), store, inventory(store.root))
    return {each.step.label: list(each.reasons) if each.stored is None else "stored" for each in explained}


def test_nothing_is_to_be_done_again_after_a_run(tmp_path):
    _made(tmp_path)
    assert set(_explained(tmp_path).values()) == {"stored"}


def test_an_empty_store_holds_nothing_of_any_stage(tmp_path):
    assert _explained(tmp_path)["make"] == ["nothing of this stage is in the store"]


def test_a_changed_key_is_named_with_both_values_and_what_comes_after_follows(tmp_path):
    _made(tmp_path)
    explained = _explained(tmp_path, factor=5)
    assert explained["make"] == explained["baseline measure"] == "stored"
    assert explained["scale"] == ["factor: 3 -> 5"]
    assert explained["measure"] == ["scale runs"]
    assert explained["compare"] == ["measure runs"]


def test_of_several_that_were_made_the_nearest_is_compared_with(tmp_path):
    _made(tmp_path, factor=4)
    _made(tmp_path, number=9, factor=7)
    assert _explained(tmp_path, factor=5)["scale"] == ["factor: 4 -> 5"]


def test_damage_is_told_apart_from_a_change(tmp_path):
    _made(tmp_path)
    (file,) = (tmp_path / "store" / "artifacts").glob("scale-*/checkpoint.json")
    file.write_text("7")
    explained = _explained(tmp_path)
    assert explained["scale"] == ["its files have changed since they were written"]
    assert explained["measure"] == "stored"  # the same work gives the same result


def test_a_new_version_of_a_stage_is_a_reason(tmp_path, monkeypatch):
    _made(tmp_path)
    stage = toy.STAGES["scale"]
    monkeypatch.setitem(toy.STAGES, "scale", replace(stage, version=2))
    assert _explained(tmp_path)["scale"] == ["version: 1 -> 2"]
