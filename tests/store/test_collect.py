import os
import time

import pytest

from segslim.errors import UserError
from segslim.pipeline.store import MANIFEST, Store, in_use
from segslim.store import collect, inventory

DAY = 86400.0
KEYS = {name: name * 64 for name in "abc"}


@pytest.fixture
def store(tmp_path):
    """Three artifacts of a little over 1000 bytes: `a` was used 30 days ago, `b` 20, `c` 10."""
    made = Store(tmp_path)
    for days, key in zip((30, 20, 10), KEYS.values(), strict=True):
        artifact, _ = made.open(key)
        (artifact / "weights.bin").write_bytes(bytes(1000))
        committed = made.commit("train", key, {"result": "fine", "seconds": 1.0, "recipe": {"stage": "train"}})
        _age(committed.path / MANIFEST, days)
    return made


def _age(path, days):
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def _left(store):
    return "".join(item.fingerprint[0] for item in inventory(store.root))


def test_what_was_not_used_for_long_is_deleted(store):
    done = collect(store.root, older_than=15 * DAY, down_to=None)
    assert _left(store) == "c" and len(done.artifacts) == 2 and done.size > 2000
    assert not list((store.root / "trash").iterdir())


def test_the_least_recently_used_are_deleted_until_it_is_small_enough(store):
    collect(store.root, older_than=None, down_to=2 * inventory(store.root)[0].size)
    assert _left(store) == "bc"
    collect(store.root, older_than=None, down_to=0)
    assert _left(store) == ""


def test_using_an_artifact_makes_it_young(store):
    store.touch(store.find("train", KEYS["a"]))
    collect(store.root, older_than=15 * DAY, down_to=None)
    assert _left(store) == "ca"


def test_a_dry_run_deletes_nothing(store):
    done = collect(store.root, older_than=None, down_to=0, dry_run=True)
    assert len(done.artifacts) == 3 and _left(store) == "abc"


def test_what_a_run_in_progress_uses_stays_and_is_counted(store):
    with in_use(store.root, [KEYS["a"]]):
        done = collect(store.root, older_than=15 * DAY, down_to=0)
    assert _left(store) == "a" and done.kept_in_use == 1


def test_half_done_work_stays_while_somebody_is_at_it_or_it_is_young(store):
    work = {}
    for name, days in (("d", 20), ("e", 20), ("f", 1)):
        _, scratch = store.open(name * 64)
        (scratch / "last.state").write_text("state")
        for path in (scratch / "last.state", scratch, scratch.parent / "artifact", scratch.parent):
            _age(path, days)
        work[name] = scratch
    with store.lock("d" * 64, waiting=lambda holder: None):
        collect(store.root, older_than=15 * DAY, down_to=None)
    assert [name for name, path in work.items() if path.exists()] == ["d", "f"]


def test_damaged_artifacts_that_were_set_aside_are_deleted(store):
    (store.root / "artifacts" / f"train-{'a' * 20}" / "weights.bin").write_bytes(b"rot")
    store.set_aside("train", KEYS["a"])
    collect(store.root, older_than=None, down_to=1 << 40)
    assert not list((store.root / "aside").iterdir()) and _left(store) == "bc"


def test_where_there_is_no_store_it_says_so(tmp_path):
    with pytest.raises(UserError, match="there is no store"):
        collect(tmp_path / "none", older_than=1, down_to=None)
