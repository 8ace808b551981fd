"""Files rot, disks fill up, folders cannot be written: noticed before use, said in one line, nothing half is left."""

import json
import os
import re
import shutil
import subprocess

import pytest

from segslim.pipeline.store import Store
from tests.command import TINY, poison, segslim
from tests.faults.command import Typed, figures, finished, forget, manifests, weights

pytestmark = pytest.mark.slow
PAGE = 4096  # bytes: what the smallest file takes
COMMAND = (*TINY, "compress=prune_uniform", "compress.ratio=0.2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(*COMMAND, cwd=folder)
    return folder


@pytest.fixture
def mounted(tmp_path):
    """mounted(SIZE, OPTIONS): a file system of its own in a folder, which the test can fill."""
    folders = []

    def mount(options: str):
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"this process may not mount a tmpfs: {made.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", folder], check=True)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


DAMAGES = {"bit flip": flip, "truncated": truncate, "deleted": os.remove}


def test_no_file_of_any_artifact_changes_unnoticed(undisturbed, tmp_path, record):
    """Each file of each artifact in turn, by each damage in turn: the store does not give the artifact any more."""
    shutil.copytree(undisturbed / ".segslim", tmp_path / ".segslim")
    store = Store(tmp_path / ".segslim")
    for name, manifest in _by_folder(store.root / "artifacts").items():
        for victim in (*manifest["files"], "manifest.json"):
            file = store.root / "artifacts" / name / victim
            content = file.read_bytes()
            for kind, damage in DAMAGES.items() if content else ():
                damage(file)
                assert store.find(manifest["stage"], manifest["fingerprint"]) is None, (kind, file)
                file.write_bytes(content)
                record(kind, f"{manifest['stage']}/{victim}", "noticed", 0)
        assert store.find(manifest["stage"], manifest["fingerprint"]) is not None


def test_damaged_artifacts_are_set_aside_and_made_again(undisturbed, tmp_path, record):
    """A file of every artifact, all artifacts at once, another file and another damage each time."""
    shutil.copytree(undisturbed / ".segslim", tmp_path / ".segslim")
    store = tmp_path / ".segslim" / "artifacts"
    names = {artifact: sorted(manifest["files"]) for artifact, manifest in _by_folder(store).items()}
    for turn, (kind, damage) in enumerate(DAMAGES.items()):
        for artifact, files in names.items():
            victim = [*files, "manifest.json"][turn % (len(files) + 1)]
            damage(store / artifact / victim)
            record(kind, f"{artifact.split('-')[0]}/{victim}", "made again", 0)
        typed = finished(*COMMAND, cwd=tmp_path)
        assert typed.stdout.count("was damaged") == len(names)
        assert weights(tmp_path / ".segslim") == weights(undisturbed / ".segslim")
        assert figures(tmp_path) == figures(undisturbed)


def _by_folder(artifacts):
    return {file.parent.name: json.loads(file.read_text()) for file in artifacts.glob("*/manifest.json")}


def fill(disk, left):
    """Leaves that many bytes of it."""
    free = os.statvfs(disk)
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - left)


def test_a_disk_that_fills_up_in_any_stage_is_one_line_and_no_half_artifact(undisturbed, tmp_path, mounted, record):
    """Each stage in turn finds room for half of what it writes, beside the page that names what the run uses."""
    disk = mounted("size=400m")
    store, command = disk / "store", (*COMMAND, f"store={disk / 'store'}")
    shutil.copytree(undisturbed / ".segslim", store)
    whole, stopped = manifests(store), set()
    for fingerprint, manifest in whole.items():
        [artifact] = store.glob(f"artifacts/*-{fingerprint[:20]}")
        written = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
        shutil.move(artifact, tmp_path / artifact.name)
        fill(disk, left=PAGE + written // 2)
        typed = Typed(*command, cwd=tmp_path)
        assert typed.wait() == 2, typed.stdout + typed.stderr
        (disk / "filler").unlink()
        stopped |= _told_as_full(typed.stderr, store)
        record("full disk", manifest["stage"], typed.stderr.strip(), 0)
        assert manifests(store).keys() == whole.keys() - {fingerprint}
        assert not list(store.glob("work/*/artifact")) and not list(store.glob("work/*/scratch/*.unfinished"))
        shutil.move(tmp_path / artifact.name, artifact)
    assert stopped == {manifest["stage"] for manifest in whole.values()}
    forget(store, next(fingerprint for fingerprint, manifest in whole.items() if manifest["stage"] == "retrain"))
    finished(*command, cwd=tmp_path)
    assert weights(store) == weights(undisturbed / ".segslim")


def test_a_disk_without_a_byte_left_is_one_line(tmp_path, mounted):
    store = mounted("size=1m") / "store"
    store.mkdir()
    fill(store.parent, left=0)
    answer = segslim(f"store={store}", cwd=tmp_path, without_paddle=poison(tmp_path / "poison"))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert f"store={store} cannot be written (No space left on device): free some of its disk" in answer.stderr


def _told_as_full(told, store):
    stage = r"error: stage '(?:baseline )?(\w+)(?: \d)?': "
    found = re.fullmatch(f"{stage}the disk of store={store} is full: .*; what is finished is kept\n", told)
    assert found, told
    return {found[1]}


def test_a_full_disk_of_temporary_files_is_told_from_that_of_the_store(undisturbed, tmp_path, mounted, monkeypatch):
    shutil.copytree(undisturbed / ".segslim", tmp_path / ".segslim")
    for fingerprint, manifest in manifests(tmp_path / ".segslim").items():
        if manifest["stage"] == "export":
            forget(tmp_path / ".segslim", fingerprint)
    disk = mounted("size=16k")
    monkeypatch.setenv("TMPDIR", str(disk))
    answer = segslim(*COMMAND, cwd=tmp_path)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert f"export': the disk of temporary files, {disk}, is full: free some of it, or set TMPDIR" in answer.stderr


@pytest.mark.parametrize("key", ["store", "hydra.run.dir"])
def test_a_folder_that_can_only_be_read_is_one_line(tmp_path, mounted, key):
    disk = mounted("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    answer = segslim(f"{key}={disk / 'folder'}", cwd=tmp_path, without_paddle=poison(tmp_path / "poison"))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert str(disk / "folder") in answer.stderr and "Read-only file system" in answer.stderr
    assert not list(disk.iterdir())
