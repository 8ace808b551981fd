"""What makes two pieces of work the same: the stage and its version, the config that it reads with the content of the
files that this names, the code of the user's own that it runs, its parents, and what else it depends on.

A stage sees the config through a ConfigView, which shows the keys that enter the fingerprint and raises at any other:
so two runs of one fingerprint cannot differ by a key.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from segslim.files import sha256_of
from segslim.pipeline.stage import Stage
from segslim.plugins import named_modules, own_code


class UndeclaredKeyError(Exception):
    """A stage read a key that it does not declare: a defect of the stage, not of the config."""


class ConfigView:
    """The config as one stage may see it. Reading a key beside or above the declared ones raises UndeclaredKeyError.

    `used` collects the declared keys that were read.
    """

    def __init__(self, config: Any, stage: Stage, _key: str = "", _used: set[str] | None = None) -> None:
        self._config, self._stage, self._key = config, stage, _key
        self.used: set[str] = set() if _used is None else _used

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy, pickle and the like ask for these
            raise AttributeError(name)
        value = self._config[name] if isinstance(self._config, Mapping) else getattr(self._config, name)
        key = f"{self._key}.{name}" if self._key else name
        declared = (*self._stage.reads, *self._stage.ignores)
        at_or_above = [one for one in declared if is_at_or_below(key, one)]
        if at_or_above:
            self.used.update(at_or_above)
            return value
        if any(is_at_or_below(one, key) for one in declared):
            return ConfigView(value, self._stage, key, self.used)
        raise UndeclaredKeyError(f"stage '{self._stage.name}' reads {key}: declare it in reads=[...] of its @stage")

    __getitem__ = __getattr__


def whole_config(view: Any) -> Any:
    """What a view is of, for a stage that goes on in another process, by a view of its own."""
    return view._config if isinstance(view, ConfigView) else view


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a recipe, whatever the order of its keys."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(stage: Stage, config: Any, parents: Mapping[str, str], dependency: Any) -> dict[str, Any]:
    """All that the result of `stage` depends on, in the clear, as an artifact's manifest keeps it."""
    read = config_slice(config, stage.reads, stage.ignores)
    code = own_code([stage.module, *named_modules(read.values())])
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": {key: _by_content(value) for key, value in read.items()},
        "packages": {name: installed_version(name) for name in stage.packages},
        "parents": dict(parents),
        "identity": dependency,
        **({"code": code} if code else {}),
    }


def config_slice(config: Any, reads: Iterable[str], ignores: Iterable[str] = ()) -> dict[str, Any]:
    """{"train.iters": 250, ...}: each key at or below `reads`, flat, without those at or below `ignores`."""
    plain = config if isinstance(config, Mapping) else dataclasses.asdict(config)
    left_out = tuple(ignores)
    flat: dict[str, Any] = {}
    for key in reads:
        node = plain
        for part in key.split("."):
            node = node[part] if node is not None else None
        flat.update(_flatten(key, node))
    return {key: value for key, value in flat.items() if not any(is_at_or_below(key, one) for one in left_out)}


def is_at_or_below(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _flatten(key: str, node: Any) -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {key: node}
    return {k: v for name, child in node.items() for k, v in _flatten(f"{key}.{name}", child).items()}


def _by_content(value: Any) -> Any:
    """A file's digest in place of its path: another content is other work, another place is not."""
    if isinstance(value, (list, tuple)):
        return [_by_content(item) for item in value]
    if isinstance(value, dict):
        return {key: _by_content(item) for key, item in value.items()}
    # a mere word ("prune", "cpu") names no file, though one of that name may lie in the current folder
    if isinstance(value, str) and ("/" in value or "." in value):
        try:
            file = Path(value).expanduser()
            return f"sha256:{sha256_of(file)}" if file.is_file() else value
        except (OSError, ValueError, RuntimeError):  # too long for a path, or not to be read: whoever opens it will say
            return value
    return value


@cache  # a sweep asks for each of its jobs
def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
