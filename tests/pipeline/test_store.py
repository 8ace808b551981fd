import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from segslim.commands import main
from segslim.errors import UserError
from segslim.pipeline.store import Store, _digest_of_manifest, gate
from segslim.store import collect

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


def _replaced(make):
    def damage(folder):
        (folder / "weights.bin").unlink()
        make(folder / "weights.bin")

    return damage


def _manifest(change):
    """A manifest whose digest is right, as another version of the code may have written it."""

    def damage(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        manifest["digest"] = _digest_of_manifest(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def _as_manifest(make):
    def damage(folder):
        (folder / "manifest.json").unlink()
        make(folder / "manifest.json")

    return damage


def _as_artifact(make):
    def damage(folder):
        shutil.rmtree(folder)
        make(folder)

    return damage


PLANTED = {
    "a file beside": lambda folder: (folder / "channels.json").write_text("[]"),
    "a file further down": lambda folder: (folder / "deep" / "more.json").write_text("[]"),
    "an empty folder": lambda folder: (folder / "quantization.yaml").mkdir(),
    "a link": lambda folder: (folder / "channels.json").symlink_to("weights.bin"),
    "a dangling link": lambda folder: (folder / "channels.json").symlink_to("nowhere"),
    "a pipe": lambda folder: os.mkfifo(folder / "channels.json"),
    "a pipe in place of a file": _replaced(os.mkfifo),
    "a folder in place of a file": _replaced(Path.mkdir),
    "an endless file in place of a file": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a manifest nested too deeply": lambda folder: (folder / "manifest.json").write_text("[" * 200_000),
    "a manifest that is a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "a manifest that is no text": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\x00"),
    "a pipe as a manifest": _as_manifest(os.mkfifo),
    "an endless manifest": _as_manifest(lambda path: path.symlink_to("/dev/zero")),
    "files as a list": _manifest(lambda manifest: manifest.update(files=["weights.bin"])),
    "no seconds": _manifest(lambda manifest: manifest.pop("seconds")),
    "no result": _manifest(lambda manifest: manifest.update(result=None)),
    "a recipe that is a list": _manifest(lambda manifest: manifest.update(recipe=[])),
    "parents that are lists": _manifest(lambda manifest: manifest.update(recipe={"parents": {"a": []}})),
    "a pipe as an artifact": _as_artifact(os.mkfifo),
    "a file as an artifact": _as_artifact(Path.touch),
    "a dangling link as an artifact": _as_artifact(lambda path: path.symlink_to("nowhere")),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_what_the_manifest_does_not_name_is_damage_and_made_again(tmp_path, plant):
    store, made = _committed(tmp_path)
    plant(made.path)
    assert store.find("train", KEY) is None
    assert main(["store", "--store", str(tmp_path)]) == 0
    store.set_aside("train", KEY)
    assert _committed(tmp_path)[1].path == made.path and store.find("train", KEY) is not None
    assert collect(tmp_path, older_than=None, down_to=0).size > 0
    assert not [*(tmp_path / "aside").iterdir(), *(tmp_path / "artifacts").iterdir()]


def test_engines_and_file_managers_may_keep_their_own_beside(tmp_path):
    store, made = _committed(tmp_path)
    (made.path / "tensorrt").mkdir()
    (made.path / "tensorrt" / "engine").write_bytes(b"built for one machine")
    (made.path / ".DS_Store").touch()
    assert store.find("train", KEY) is not None


def test_an_empty_folder_of_a_stage_is_not_kept(tmp_path):
    store = Store(tmp_path)
    artifact, _ = store.open(KEY)
    (artifact / "logs" / "more").mkdir(parents=True)
    made = store.commit("train", KEY, {"result": "fine", "seconds": 1.0})
    assert store.find("train", KEY) == made and not (made.path / "logs").exists()


@pytest.mark.timeout(20)
def test_what_is_no_file_in_place_of_half_done_work_is_cleared(tmp_path):
    _, scratch = Store(tmp_path).open(KEY)
    (scratch / "deep").mkdir()
    os.mkfifo(scratch / "deep" / "training.safetensors")
    (scratch / "curve.csv").symlink_to("/dev/zero")
    (scratch / "last.state").write_text("kept")
    (scratch.parent / "artifact").rmdir()
    (scratch.parent / "artifact").symlink_to("nowhere")
    artifact, scratch = Store(tmp_path).open(KEY)
    assert not list(artifact.iterdir()) and {path.name for path in scratch.rglob("*")} == {"deep", "last.state"}


@pytest.mark.timeout(20)
def test_what_lies_about_in_a_store_stops_no_collection(tmp_path):
    store, _ = _committed(tmp_path)
    _, scratch = store.open("cd" * 32)
    (scratch / "link").symlink_to("nowhere")
    os.mkfifo(scratch / "pipe")
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "a.json").mkdir()
    os.mkfifo(tmp_path / "runs" / "b.json")
    (tmp_path / "runs" / "c.json").write_text("[" * 200_000)
    (tmp_path / "artifacts" / "link").symlink_to("nowhere")
    collect(tmp_path, older_than=0.0, down_to=0)
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.timeout(60)
def test_a_process_that_is_stopped_at_the_gate_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("segslim.pipeline.store.PATIENCE", 0.01)
    (tmp_path / "runs").mkdir()
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "runs" / "gate.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        os.kill(holder.pid, signal.SIGSTOP)
        timer = threading.Timer(1.0, holder.kill)
        timer.start()
        with gate(tmp_path):
            assert "gate.lock, which another process holds" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"store=.*: (its file system has no locks|cannot be written).*store=DIR"):
        Store(tmp_path)


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
