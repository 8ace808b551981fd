"""Takes out of a store what has not been used for long, or the least recently used until it is small enough."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from segslim.pipeline.usage import gate, used
from segslim.store.inventory import Item, folder_size, inventory


@dataclass(frozen=True)
class Collected:
    """What was taken out: artifacts, and what killed runs and damaged artifacts have left."""

    items: Sequence[Item]
    leftovers: Sequence[Path]
    size: int  # bytes
    kept_in_use: int  # artifacts that would have gone, but a run in progress uses them


def collect(root: Path, older_than: float | None, down_to: int | None, dry_run: bool = False) -> Collected:
    """Takes out the artifacts not used for `older_than` seconds, then the least recently used until `down_to` bytes are
    left; the half-done work of killed runs not touched for `older_than` seconds; damaged artifacts always.

    Nothing that a run in progress uses or makes is touched; a run that begins meanwhile waits for a moment.
    """
    before = None if older_than is None else time.time() - older_than
    trash: list[Path] = []
    with gate(root):
        items, busy = inventory(root), used(root)
        going = _going(items, before, down_to, lambda item: item.fingerprint in busy)
        wanted = _going(items, before, down_to, lambda item: False)
        leftovers = [*_children(root, "aside"), *_children(root, "trash"), *_abandoned_work(root, before, busy)]
        size = sum(item.size for item in going) + sum(map(folder_size, leftovers))
        if not dry_run:
            trash = [_move_out(root, path) for path in [*(item.path for item in going), *leftovers]]
    for folder in trash:
        shutil.rmtree(folder, ignore_errors=True)
    return Collected(going, leftovers, size, sum(item.fingerprint in busy for item in wanted))


def _going(
    items: Sequence[Item], before: float | None, down_to: int | None, is_kept: Callable[[Item], bool]
) -> list[Item]:
    left = sum(item.size for item in items)
    going = []
    for item in items:
        old = before is not None and item.used < before
        if (old or (down_to is not None and left > down_to)) and not is_kept(item):
            going.append(item)
            left -= item.size
    return going


def _abandoned_work(root: Path, before: float | None, busy: set[str]) -> list[Path]:
    """What killed runs could go on from, if none has for long. Under the gate no run begins to."""
    if before is None:
        return []
    old = (path for path in _children(root, "work") if path.name not in busy and _touched(path) < before)
    return [path for path in old if _is_free(root / "locks" / f"{path.name}.lock")]


def _touched(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _children(root: Path, name: str) -> list[Path]:
    return [path for path in (root / name).iterdir() if path.is_dir()] if (root / name).is_dir() else []


def _move_out(root: Path, path: Path) -> Path:
    """Away in one step, so that no run finds half of it; what is deleted stands outside of artifacts/ and work/."""
    (root / "trash").mkdir(exist_ok=True)
    into = Path(tempfile.mkdtemp(dir=root / "trash"))
    path.replace(into / path.name)
    return into
