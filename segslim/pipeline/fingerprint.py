"""What makes two pieces of work the same: stage, version, the config it reads, its parents, what else it depends on."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from typing import Any

from segslim.pipeline.stage import Stage


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a recipe, whatever the order of its keys."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(stage: Stage, config: Any, parents: Mapping[str, str], identity: Any) -> dict[str, Any]:
    """All that the result of `stage` depends on, in the clear, as an artifact's manifest keeps it."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": config_slice(config, stage.reads, stage.ignores),
        "packages": {name: _installed(name) for name in stage.packages},
        "parents": dict(parents),
        "identity": identity,
    }


def config_slice(config: Any, reads: Iterable[str], ignores: Iterable[str] = ()) -> dict[str, Any]:
    """{"train.iters": 250, ...}: each key below `reads`, flat, without those at or below `ignores`."""
    plain = config if isinstance(config, Mapping) else dataclasses.asdict(config)
    left_out = tuple(ignores)
    flat: dict[str, Any] = {}
    for key in reads:
        node = plain
        for part in key.split("."):
            node = node[part]
        flat.update(_flatten(key, node))
    return {key: value for key, value in flat.items() if not any(key == i or key.startswith(i + ".") for i in left_out)}


def _flatten(key: str, node: Any) -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {key: node}
    return {k: v for name, child in node.items() for k, v in _flatten(f"{key}.{name}", child).items()}


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
