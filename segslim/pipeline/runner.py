"""Walks a plan: what the store holds is reused; what it does not is locked, run and committed."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from segslim.errors import UserError
from segslim.pipeline.fingerprint import ConfigView
from segslim.pipeline.plan import Plan, Step
from segslim.pipeline.stage import Stage, Workspace
from segslim.pipeline.store import Artifact, Store

PROBE_BYTES = 1 << 26
FULL_BYTES = 1 << 20  # a disk with less left is full


class RunListener(Protocol):
    """Hears what happens in a run, in its order: the terminal, a logger."""

    def cached(self, step: Step, artifact: Artifact) -> None: ...
    def waiting(self, step: Step, holder: str) -> None: ...
    def started(self, step: Step) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def measured(self, iteration: int, numbers: Mapping[str, float]) -> None: ...
    def finished(self, step: Step, artifact: Artifact) -> None: ...
    def warned(self, step: Step, warning: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """One step after the walk. `seconds` is what the stage took when it ran, whether in this run or an earlier one."""

    step: Step
    artifact: Artifact
    cached: bool
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return float(self.artifact.manifest["seconds"])


def run(
    plan: Plan, store: Store, listener: RunListener, until: str | None = None, again: Collection[str] = ()
) -> list[Outcome]:
    """Makes what the store does not hold, up to the first step of the stage `until` where one is named.

    The steps whose fingerprints are in `again` are made again, whatever the store holds. What a stage raises passes
    through; what was committed before it stays.
    """
    artifacts: dict[str, Artifact] = {}
    outcomes = []
    for position, step in enumerate(plan.steps):
        later = tuple(dict.fromkeys(other.stage for other in plan.steps[position + 1 :]))
        inputs = {kind: artifacts[parent.fingerprint].path for kind, parent in step.inputs.items()}
        outcome = _find_or_make(step, inputs, later, store, listener, step.fingerprint in again)
        warnings = step.stage.remarks_on(outcome.artifact.path, step.config)
        for warning in warnings:
            listener.warned(step, warning)
        outcome = replace(outcome, warnings=warnings)
        artifacts[step.fingerprint] = outcome.artifact
        outcomes.append(outcome)
        if step.stage.name == until:
            break
    return outcomes


def _find_or_make(
    step: Step, inputs: dict[str, Path], later: tuple[Stage, ...], store: Store, listener: RunListener, afresh: bool
) -> Outcome:
    if afresh:
        with store.lock(step.fingerprint, waiting=lambda holder: listener.waiting(step, holder)):
            store.discard(step.stage.name, step.fingerprint)
            return Outcome(step, _make(step, inputs, later, store, listener), cached=False)
    found = store.find(step.stage.name, step.fingerprint)
    if found is None:
        with store.lock(step.fingerprint, waiting=lambda holder: listener.waiting(step, holder)):
            found = store.find(step.stage.name, step.fingerprint)  # another process may have made it meanwhile
            if found is None:
                store.set_aside(step.stage.name, step.fingerprint)
                return Outcome(step, _make(step, inputs, later, store, listener), cached=False)
    store.touch(found)
    listener.cached(step, found)
    return Outcome(step, found, cached=True)


def _make(
    step: Step, inputs: dict[str, Path], later: tuple[Stage, ...], store: Store, listener: RunListener
) -> Artifact:
    listener.started(step)
    artifact, scratch = store.open(step.fingerprint)
    begun = time.perf_counter()
    try:
        workspace = Workspace(artifact, scratch, listener.progress, listener.measured, inputs, later)
        view = ConfigView(step.config, step.stage)
        result = step.stage.run(inputs, view, workspace)
        manifest = {
            "recipe": step.recipe,
            "result": result,
            "keys": sorted(view.used),  # of the declared ones, those that were read
            "seconds": round(time.perf_counter() - begun, 3),
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        committed = store.commit(step.stage.name, step.fingerprint, manifest)
    except BaseException as error:
        reason = _of_the_machine(error, store)
        store.abandon(step.fingerprint)
        if reason is None:
            raise
        raise UserError(f"stage '{step.label}': {reason}; what is finished is kept") from error
    listener.finished(step, committed)
    return committed


def _of_the_machine(error: BaseException, store: Store) -> str | None:
    """What the machine lacked, if that is why a stage failed: each library says it in its own way."""
    if isinstance(error, Exception) and _lacks_memory(error):
        return "there is not enough memory: free some, or lower batch_size, num_workers or dataset.size"
    if isinstance(error, Exception) and _said(error, errno.EFBIG):
        return "a file would be larger than the system lets it be: raise the limit of ulimit -f"
    if isinstance(error, Exception) and (_said(error, errno.EAGAIN) or "can't start new thread" in str(error)):
        return "there can be no more threads or processes: raise the limit of ulimit -u, or lower num_workers"
    if isinstance(error, Exception):
        return _full_disk(error, store.root)
    return None


def _said(error: Exception, *numbers: int) -> bool:
    """Whether it is an error of the system of these numbers, by its number or, through a library, in words."""
    return (isinstance(error, OSError) and error.errno in numbers) or any(os.strerror(n) in str(error) for n in numbers)


def _full_disk(error: Exception, root: Path) -> str | None:
    """Which disk is full, that of the store or of temporary files. Not every library says so: then what is left tells;
    and where one is named is lost by the time, so it is the fuller of the two.
    """
    temporary = Path(tempfile.gettempdir())
    fuller = min(root, temporary, key=lambda folder: shutil.disk_usage(folder).free)
    if not _said(error, errno.ENOSPC, errno.EDQUOT) and shutil.disk_usage(fuller).free >= FULL_BYTES:
        return None
    if fuller == root:
        return f"the disk of store={root} is full: free some of it, or give store=DIR on another"
    return f"the disk of temporary files, {temporary}, is full: free some of it, or set TMPDIR to a folder on another"


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or any(words in str(error) for words in ("bad_alloc", "out of memory")):
        return True
    try:
        bytearray(PROBE_BYTES)
    except MemoryError:  # under a limit (ulimit -v), where libraries fail in ways of their own
        return True
    return False
