"""The store of artifacts as its owner sees it: what is in it, why a stage would run again, what may be deleted.

It reads the store as the pipeline writes it and plans as a run does; it makes no artifact and imports no Paddle.
"""

import json
import os
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segslim.errors import UserError
from segslim.files import read_plain
from segslim.hardware import garbage_collector_off
from segslim.pipeline.plan import Plan, Step, plan
from segslim.pipeline.store import MANIFEST, Store, gate, is_manifest, used

ABSENT = object()  # in place of the value of a key that a recipe does not have


@dataclass(frozen=True)
class StoredArtifact:
    """One artifact's folder. `manifest` is empty where it cannot be read, `size` in bytes, `last_used` in seconds since
    1970: when a run made or reused it.
    """

    path: Path
    manifest: Mapping[str, Any]
    size: int
    last_used: float

    @property
    def name(self) -> str:
        """Short, and as good as unique: train-ee99b301."""
        stage, _, fingerprint = self.path.name.partition("-")
        return f"{stage}-{fingerprint[:8]}"

    @property
    def fingerprint(self) -> str:
        return str(self.manifest.get("fingerprint", ""))

    @property
    def recipe(self) -> Mapping[str, Any]:
        recipe: Mapping[str, Any] = self.manifest.get("recipe", {})
        return recipe


def inventory(root: Path) -> list[StoredArtifact]:
    """Every artifact below `root`, the one used last at the end. Raises UserError where there is no store."""
    folder = root / "artifacts"
    if not folder.is_dir():
        raise UserError(f"store={root}: there is no store; the first run makes it")
    found = []
    with garbage_collector_off():  # it looks through all that was read again and again
        for path in (Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()):
            file = path / MANIFEST
            try:
                manifest, last_used = read_plain(file), file.stat().st_mtime
            except (OSError, ValueError):
                manifest, last_used = {}, path.stat().st_mtime
            found.append(StoredArtifact(path, manifest if is_manifest(manifest) else {}, folder_size(path), last_used))
    return sorted(found, key=lambda artifact: (artifact.last_used, artifact.path.name))


def folder_size(folder: str | os.PathLike[str]) -> int:
    """Bytes of all files below `folder`. By scandir: rglob takes seconds for a store of ten thousand artifacts."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:  # a run may delete it meanwhile
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += folder_size(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total


def distinguishing(artifacts: Sequence[StoredArtifact], limit: int = 3) -> list[list[str]]:
    """Of each artifact, the settings that tell it from others of its stage, the most general first:
    ["compress.ratio=0.2"].
    """
    first: dict[Any, Mapping[str, Any]] = {}
    varying: dict[Any, set[str]] = {}  # a setting varies where one artifact of the stage differs from the first
    for artifact in artifacts:
        stage, own = artifact.recipe.get("stage"), artifact.recipe.get("config", {})
        one = first.setdefault(stage, own)
        varying.setdefault(stage, set()).update(key for key, value in own.items() if one.get(key) != value)
        varying[stage].update(one.keys() - own.keys())
    general = {stage: sorted(keys, key=lambda key: (key.count("."), key)) for stage, keys in varying.items()}
    found = []
    for artifact in artifacts:
        own = artifact.recipe.get("config", {})
        plain = (key for key in general[artifact.recipe.get("stage")] if isinstance(own.get(key), (str, int, float)))
        found.append([f"{key}={own[key]}" for key in islice(plain, limit)])
    return found


# --- deleting what no run needs


@dataclass(frozen=True)
class Collected:
    """What was deleted, or in a dry run would be: artifacts, and what killed runs and damaged artifacts have left."""

    artifacts: Sequence[StoredArtifact]
    leftovers: Sequence[Path]
    size: int  # bytes
    kept_in_use: int  # artifacts that a run in progress uses


def collect(root: Path, older_than: float | None, down_to: int | None, dry_run: bool = False) -> Collected:
    """Deletes artifacts that were not used for long, then the least recently used ones until the store is small enough.

    Damaged artifacts that were set aside are always deleted. Nothing that a run in progress uses or makes is touched; a
    run that begins meanwhile waits for a moment. Raises UserError where there is no store.

    Args:
        root: the folder of the store.
        older_than: seconds since the last use, for artifacts and for the half-done work of killed runs; None for any.
        down_to: bytes that artifacts may take; None for any.
        dry_run: delete nothing.
    """
    before = None if older_than is None else time.time() - older_than
    trash: list[Path] = []
    with gate(root):
        artifacts, busy = inventory(root), used(root)
        deleted = _select(artifacts, before, down_to, lambda artifact: artifact.fingerprint in busy)
        wanted = _select(artifacts, before, down_to, lambda artifact: False)
        leftovers = [*_folders(root / "aside"), *_folders(root / "trash"), *_abandoned_work(root, before, busy)]
        size = sum(artifact.size for artifact in deleted) + sum(map(folder_size, leftovers))
        if not dry_run:
            (root / "trash").mkdir(exist_ok=True)
            for path in [*(artifact.path for artifact in deleted), *leftovers]:
                # a rename first: no run finds a half-deleted folder, nor does a kill leave one
                trash.append(Path(tempfile.mkdtemp(dir=root / "trash")))
                path.replace(trash[-1] / path.name)
    for folder in trash:  # outside of the gate: runs need not wait for it
        shutil.rmtree(folder, ignore_errors=True)
    return Collected(deleted, leftovers, size, sum(artifact.fingerprint in busy for artifact in wanted))


def _select(
    artifacts: Sequence[StoredArtifact],
    before: float | None,
    down_to: int | None,
    is_kept: Callable[[StoredArtifact], bool],
) -> list[StoredArtifact]:
    left = sum(artifact.size for artifact in artifacts)
    selected = []
    for artifact in artifacts:
        old = before is not None and artifact.last_used < before
        if (old or (down_to is not None and left > down_to)) and not is_kept(artifact):
            selected.append(artifact)
            left -= artifact.size
    return selected


def _abandoned_work(root: Path, before: float | None, busy: set[str]) -> list[Path]:
    """Half-done work that a killed run left and none has gone on with since. To be called within the gate."""
    abandoned: list[Path] = []
    if before is None:
        return abandoned
    for path in _folders(root / "work"):
        touched = max(file.lstat().st_mtime for file in (path, *path.rglob("*")))
        if path.name in busy or touched >= before:
            continue
        with suppress(Timeout), FileLock(root / "locks" / f"{path.name}.lock").acquire(timeout=0):
            abandoned.append(path)
    return abandoned


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


# --- explaining a run


@dataclass(frozen=True)
class Explanation:
    """Of one step of a plan: the folder of the artifact that it would reuse, or else the reasons why it would run."""

    step: Step
    stored: Path | None
    reasons: tuple[str, ...] = ()


def plan_run(overrides: list[str], root: Path, config_dir: Path | None = None) -> tuple[Plan, Path]:
    """The plan that run.py would follow, with configs of one's own in `config_dir`, and the store in which it would
    look. Raises UserError as run.py does.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from segslim.command_line import CONF, in_one_line, quoted, quoted_value
    from segslim.config import validate
    from segslim.front import first
    from segslim.paddleseg import register
    from segslim.reporting.report import WANTED
    from segslim.stages import stages_for
    from segslim.stages.strategy import resolve

    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir={config_dir}: there is no such folder")
    searched = [] if config_dir is None else [f"hydra.searchpath=[{quoted_value(f'file://{config_dir.resolve()}')}]"]
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = validate(compose("config", [*quoted([f"store={root}", *overrides]), *searched]))
    except HydraException as error:
        raise UserError(in_one_line(error)) from None
    return plan(resolve(first(config)), stages_for(config), WANTED), Path(config.store)


def explain(plan: Plan, store: Store, artifacts: Iterable[StoredArtifact]) -> list[Explanation]:
    """One Explanation for each step of the plan, in order. Its reasons go by the nearest artifact of the same stage."""
    by_stage: dict[str, list[StoredArtifact]] = {}
    names = {}
    for artifact in artifacts:
        by_stage.setdefault(str(artifact.recipe.get("stage")), []).append(artifact)
        names[artifact.fingerprint] = artifact.name
    explained: dict[str, Explanation] = {}
    for step in plan.steps:
        stored = store.find(step.stage.name, step.fingerprint)
        if stored is not None:
            explained[step.fingerprint] = Explanation(step, stored.path)
            continue
        missing = {
            kind: parent.label for kind, parent in step.inputs.items() if not explained[parent.fingerprint].stored
        }
        reasons = _reasons(step, by_stage.get(step.stage.name, []), missing, names)
        explained[step.fingerprint] = Explanation(step, None, tuple(reasons))
    return list(explained.values())


def _reasons(
    step: Step, made: list[StoredArtifact], missing: Mapping[str, str], names: Mapping[str, str]
) -> Iterable[str]:
    if any(artifact.fingerprint == step.fingerprint for artifact in made):
        yield "its files have changed since they were written"
        return
    if not made:
        yield "nothing of this stage is in the store"
        return
    # of those that differ least the latest
    nearest = min(reversed(made), key=lambda artifact: len(differences(step.recipe, artifact.recipe)))
    yield from (f"{label} runs" for label in dict.fromkeys(missing.values()))
    for key, (before, after) in differences(step.recipe, nearest.recipe).items():
        kind = key.removeprefix("parents.")
        if kind != key:
            if kind not in missing:  # its running has been named already
                yield f"{kind}: {_value(names.get(before, before))} -> {_value(names.get(after, after))}"
        elif before is ABSENT:
            yield f"{key}: {_value(after)}, new: the stage did not read it before"
        elif after is ABSENT:
            yield f"{key}: removed, the stage does not read it now"
        else:
            yield f"{key}: {_value(before)} -> {_value(after)}"


def differences(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (made, wanted)} of two recipes, flat: a config key, or "version", "packages.onnx", "parents.checkpoint"."""
    before, after = _flatten_recipe(made), _flatten_recipe(wanted)
    pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted(before.keys() | after.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flatten_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    def flatten(key: str, node: Any) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            return {key: node}
        return {k: v for name, child in node.items() for k, v in flatten(f"{key}.{name}", child).items()}

    recipe = json.loads(json.dumps(recipe))  # as the store keeps it: a tuple is a list
    flat = {"version": recipe.get("version"), **recipe.get("config", {})}
    for part in {"packages", "parents", "identity", "code"} & recipe.keys():
        flat.update(flatten(part, recipe.get(part)))
    return flat


def _value(value: Any, width: int = 60) -> str:
    if value is ABSENT:
        return "none"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= width else f"{text[: width - 3]}..."


if __name__ == "__main__":
    sys.argv[1:1] = ["store"]
    runpy.run_module("segslim", run_name="__main__")
