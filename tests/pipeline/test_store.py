import os

import pytest

from segslim.errors import UserError
from segslim.pipeline.store import Store

KEY = "ab" * 32


def _committed(root):
    store = Store(root)
    artifact, _ = store.open(KEY)
    (artifact / "deep").mkdir()
    (artifact / "weights.bin").write_bytes(bytes(range(256)))
    (artifact / "deep" / "metrics.json").write_text("{}")
    return store, store.commit("train", KEY, {"result": "fine", "seconds": 1.0})


def test_a_committed_artifact_is_found_whole(tmp_path):
    _, made = _committed(tmp_path)
    found = Store(tmp_path).find("train", KEY)
    assert found.path == made.path and found.manifest["result"] == "fine"
    assert (found.path / "weights.bin").read_bytes() == bytes(range(256))
    assert not list((tmp_path / "work").iterdir())


def test_what_was_not_committed_is_not_found_and_its_scratch_stays(tmp_path):
    store = Store(tmp_path)
    artifact, scratch = store.open(KEY)
    (artifact / "half.bin").write_bytes(b"half")
    (scratch / "last.state").write_bytes(b"state")
    assert Store(tmp_path).find("train", KEY) is None
    artifact, scratch = Store(tmp_path).open(KEY)
    assert not list(artifact.iterdir())
    assert (scratch / "last.state").read_bytes() == b"state"


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [_flip, lambda path: os.truncate(path, 1), lambda path: path.unlink()],
    ids=["bit flip", "truncated", "deleted"],
)
@pytest.mark.parametrize("name", ["weights.bin", "deep/metrics.json", "manifest.json"])
def test_damage_to_any_file_is_noticed_and_set_aside(tmp_path, caplog, name, damage):
    store, made = _committed(tmp_path)
    damage(made.path / name)
    assert store.find("train", KEY) is None and made.path.exists()
    store.set_aside("train", KEY)
    assert "damaged" in caplog.text
    assert not made.path.exists() and len(list((tmp_path / "aside").iterdir())) == 1


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"store=.*file/store: cannot be written .*store=DIR"):
        Store(tmp_path / "file" / "store")


def test_a_host_whose_locks_do_not_reach_ours_may_commit_first_and_its_artifact_stands(tmp_path):
    ours = Store(tmp_path)
    artifact, _ = ours.open(KEY)
    (artifact / "weights.bin").write_bytes(b"ours")
    elsewhere = artifact.parent.rename(tmp_path / "work" / "ours")
    theirs = _committed(tmp_path)[1]
    elsewhere.rename(artifact.parent)
    assert ours.commit("train", KEY, {"result": "fine", "seconds": 2.0}).manifest == theirs.manifest
    assert (theirs.path / "weights.bin").read_bytes() == bytes(range(256))
