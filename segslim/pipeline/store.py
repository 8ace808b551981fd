"""Content-addressed artifacts on disk: whole or not there, checked before use, one maker at a time.

artifacts/train-3f9a.../   what a stage wrote, and manifest.json: how it was made, and a SHA-256 of every file
work/3f9a.../              a stage at work: `artifact` is to be committed, `scratch` serves after a kill
locks/3f9a....lock         held while it is being made; the operating system frees it when its holder dies
locks/3f9a....holder       who holds it
aside/                     artifacts whose hashes did not match
runs/                      which artifacts the runs in progress use (`used`)
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segslim.errors import UserError
from segslim.files import flush, read_plain, sha256_of
from segslim.streams import complain

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
NOT_OURS = ("tensorrt", ".DS_Store")  # what engines (deployment.py) and file managers keep in an artifact
PATIENCE = 10.0  # seconds, before it is said what is waited for


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its folder and its manifest {stage, fingerprint, recipe, result, seconds, made, files}."""

    path: Path
    manifest: Mapping[str, Any]


class Store:
    """The artifacts below one folder, which may be shared by processes and, where its file system locks, by hosts."""

    def __init__(self, root: Path):
        """Makes the folder. Raises UserError when it cannot be written."""
        self.root = root.absolute()
        lock = FileLock(self.root / "locks" / f"probe-{os.getpid()}.lock", timeout=0)
        try:
            for folder in ("artifacts", "work", "locks"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            probe = self.root / "work" / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            with lock:
                pass
            Path(lock.lock_file).unlink(missing_ok=True)
        except (Timeout, NotImplementedError):
            raise UserError(f"store={root}: its file system has no locks: give store=DIR on another") from None
        except OSError as error:
            raise UserError(
                f"store={root}: cannot be written ({error.strerror}): give a writable folder by store=DIR"
            ) from None

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The artifact if it is there and every file is as it was written."""
        folder = self._folder(stage, fingerprint)
        if not os.path.lexists(folder) or fault(folder, fingerprint) is not None:
            return None
        return Artifact(folder, read_plain(folder / MANIFEST))

    def touch(self, artifact: Artifact) -> None:
        """Notes that a run has used it now, as the modification time of its manifest."""
        with suppress(OSError):  # somebody else's store may be used, too
            os.utime(artifact.path / MANIFEST)

    def set_aside(self, stage: str, fingerprint: str) -> None:
        """Moves a damaged artifact out of the way, with a warning. Only who holds the lock may: a process that does not
        could move what another one has just made again.
        """
        folder = self._folder(stage, fingerprint)
        if not os.path.lexists(folder):
            return
        found = fault(folder, fingerprint)
        (self.root / "aside").mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self.root / "aside", prefix=f"{folder.name}-"))
        folder.rename(aside / folder.name)
        log.warning("the artifact of %s was damaged (%s): set aside as %s and made again", stage, found, aside)

    def discard(self, stage: str, fingerprint: str) -> None:
        """Deletes an artifact that is to be made again, if it is there. Only who holds the lock may."""
        folder = self._folder(stage, fingerprint)
        if os.path.lexists(folder):
            (self.root / "trash").mkdir(exist_ok=True)
            gone = Path(tempfile.mkdtemp(dir=self.root / "trash"))
            folder.rename(gone / folder.name)  # first: no run finds a half-deleted folder
            shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def lock(self, fingerprint: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Holds the lock of one fingerprint; when another process has it, calls `waiting` once, with who that is in
        words, and waits.
        """
        lock = FileLock(self.root / "locks" / f"{fingerprint}.lock")
        holder = self.root / "locks" / f"{fingerprint}.holder"  # beside it: who opens a lock's file empties it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            try:
                waiting(holder.read_text(encoding="utf-8"))
            except OSError:
                waiting("another process")
            lock.acquire()
        with suppress(OSError):  # it only tells
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def open(self, fingerprint: str) -> tuple[Path, Path]:
        """The folders (artifact, scratch) to work in: `artifact` is empty, `scratch` as a killed run left it."""
        artifact, scratch = (self.root / "work" / fingerprint / name for name in ("artifact", "scratch"))
        _remove(artifact)
        artifact.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        for path in scratch.rglob("*"):  # a pipe or a link that somebody put there is nothing to go on from
            if not stat.S_ISREG(path.lstat().st_mode) and not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
        return artifact, scratch

    def abandon(self, fingerprint: str) -> None:
        """Clears what a stage that failed has half written; what it can go on from stays."""
        work = self.root / "work" / fingerprint
        shutil.rmtree(work / "artifact", ignore_errors=True)
        if not any((work / "scratch").iterdir()):
            shutil.rmtree(work, ignore_errors=True)

    def commit(self, stage: str, fingerprint: str, manifest: Mapping[str, Any]) -> Artifact:
        """Turns the work of `fingerprint` into its artifact, in one atomic step after everything is on the disk."""
        work = self.root / "work" / fingerprint
        artifact = work / "artifact"
        for path in sorted(artifact.rglob("*"), reverse=True):  # what is in a folder before it
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        files = {name: sha256_of(artifact / name) for name in sorted(_inside(artifact))}
        whole = {"stage": stage, "fingerprint": fingerprint, **manifest, "files": files}
        whole["digest"] = _digest_of_manifest(whole)
        (artifact / MANIFEST).write_text(json.dumps(whole, indent=2, ensure_ascii=False), encoding="utf-8")
        for path in artifact.rglob("*"):
            flush(path)
        folder = self._folder(stage, fingerprint)
        try:
            artifact.replace(folder)
        except OSError:
            theirs = self.find(stage, fingerprint)  # of a host that this one's locks do not reach
            if theirs is None:
                raise
            return theirs
        flush(folder.parent)
        shutil.rmtree(work, ignore_errors=True)
        return Artifact(folder, whole)

    def _folder(self, stage: str, fingerprint: str) -> Path:
        return self.root / "artifacts" / f"{stage}-{fingerprint[:20]}"


def fault(folder: Path, fingerprint: str) -> str | None:
    """What is wrong with an artifact, or None. A file that its manifest does not name is wrong, too: a stage that
    looks for it would believe it.
    """
    try:
        manifest = read_plain(folder / MANIFEST)
        if manifest["digest"] != _digest_of_manifest(manifest):
            return f"{MANIFEST} has changed"
        if manifest["fingerprint"] != fingerprint:
            return f"{MANIFEST} is of another fingerprint"
        if not is_manifest(manifest):
            return f"{MANIFEST} is of another version"
        there = _inside(folder)
        for name in there - manifest["files"].keys() - {MANIFEST}:
            return f"{name} is not in {MANIFEST}"
        for name, digest in manifest["files"].items():
            if name not in there or sha256_of(folder / name) != digest:
                return f"{name} has changed" if name in there else f"{name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _remove(path: Path) -> None:
    """Removes a folder with all in it, or what lies in place of one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_manifest(manifest: Any) -> bool:
    """Whether all that is asked of a manifest is there, of the right type: it may be damaged, or of another version."""
    match manifest:
        case {"fingerprint": str(), "result": str(), "seconds": int() | float(), "files": dict(), **rest}:
            recipe = rest.get("recipe", {})
            config, parents = (
                recipe.get(part, {}) if isinstance(recipe, dict) else None for part in ("config", "parents")
            )
            return (
                isinstance(config, dict)
                and isinstance(parents, dict)
                and all(isinstance(p, str) for p in parents.values())
            )
    return False


def _inside(folder: Path) -> set[str]:
    """The paths of all files below a folder, and of all folders that hold none; NOT_OURS are left out.

    Nothing is followed: a link is named, and not what it leads to.
    """
    found = set()
    for entry in os.scandir(folder):
        if entry.name in NOT_OURS:
            continue
        below = _inside(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else ()
        found |= {f"{entry.name}/{name}" for name in below} or {entry.name}
    return found


def _digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """Of all but the digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@contextmanager
def in_use(root: Path, fingerprints: Iterable[str]) -> Iterator[None]:
    """While it lasts, no process takes these fingerprints out of the store (see `used`). Raises UserError where the
    store cannot be written.
    """
    folder = _folder(root)
    name = f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
    record, alive = folder / f"{name}.json", FileLock(folder / f"{name}.lock")
    with gate(root):
        alive.acquire()
        try:
            record.write_text(json.dumps(sorted(fingerprints)), encoding="utf-8")
        except OSError as error:  # its disk is full
            record.unlink(missing_ok=True)
            reason = f"cannot be written ({error.strerror}): free some of its disk, or give store=DIR on another"
            raise UserError(f"store={root} {reason}") from None
    try:
        yield
    finally:
        record.unlink(missing_ok=True)
        alive.release()
        Path(alive.lock_file).unlink(missing_ok=True)


@contextmanager
def gate(root: Path) -> Iterator[None]:
    """Within it no run begins: what `used` said remains true."""
    lock = FileLock(_folder(root) / "gate.lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        complain(f"waiting for {lock.lock_file}, which another process holds: does it hang?")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def used(root: Path) -> set[str]:
    """The fingerprints that living runs use. Forgets the dead ones; to be called within the gate."""
    found: set[str] = set()
    for record in _folder(root).glob("*.json"):
        alive = FileLock(record.with_suffix(".lock"))
        try:
            with alive.acquire(timeout=0):
                record.unlink(missing_ok=True)
            Path(alive.lock_file).unlink(missing_ok=True)
        except Timeout:
            with suppress(OSError, ValueError, TypeError):  # it is no record of ours
                found.update(map(str, read_plain(record)))
        except OSError:
            continue  # nor is this one
    return found


def _folder(root: Path) -> Path:
    folder = root / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
