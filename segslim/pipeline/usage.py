"""Who uses which artifacts now, so that nobody deletes them meanwhile.

runs/HOST-PID-NUMBER.json   the fingerprints that one run uses
runs/HOST-PID-NUMBER.lock   held as long as the run lives; the operating system frees it when the run dies
runs/gate.lock              held for the moment in which a run signs in, or a collector looks and takes away
"""

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from segslim.errors import UserError


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
    with FileLock(_folder(root) / "gate.lock"):
        yield


def used(root: Path) -> set[str]:
    """The fingerprints that living runs use. Forgets the dead ones; to be called within the gate."""
    found: set[str] = set()
    for record in _folder(root).glob("*.json"):
        alive = FileLock(record.with_suffix(".lock"))
        try:
            with alive.acquire(timeout=0):
                record.unlink(missing_ok=True)
        except Timeout:
            found.update(json.loads(record.read_text(encoding="utf-8")))
        else:
            Path(alive.lock_file).unlink(missing_ok=True)
    return found


def _folder(root: Path) -> Path:
    folder = root / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
