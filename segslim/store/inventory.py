"""What a store holds: every artifact with its manifest, its size, and when a run last used it."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segslim.errors import UserError
from segslim.pipeline.store import MANIFEST


@dataclass(frozen=True)
class Item:
    path: Path
    manifest: Mapping[str, Any]  # empty where it cannot be read
    size: int  # bytes
    used: float  # when a run made or last reused it, seconds since 1970

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


def inventory(root: Path) -> list[Item]:
    """Every artifact below `root`, the one used last at the end. Raises UserError where there is no store."""
    folder = root / "artifacts"
    if not folder.is_dir():
        raise UserError(f"store={root}: there is no store; it is made by the first run")
    return sorted((_item(path) for path in folder.iterdir() if path.is_dir()), key=lambda item: (item.used, item.path))


def folder_size(folder: Path) -> int:
    """Bytes of all files below `folder`; what vanishes meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


def distinguishing(item: Item, items: Iterable[Item], limit: int = 3) -> list[str]:
    """Which settings tell it from the others of its stage, the most general ones first: ["compress.ratio=0.2"]."""
    stage = item.recipe.get("stage")
    others = [other.recipe.get("config", {}) for other in items if other.recipe.get("stage") == stage]
    own = item.recipe.get("config", {})
    plain = (key for key, value in own.items() if isinstance(value, (str, int, float)))
    keys = [key for key in plain if any(other.get(key) != own[key] for other in others)]
    general = sorted(keys, key=lambda key: (key.count("."), key))[:limit]
    return [f"{key}={own[key]}" for key in general]


def _item(path: Path) -> Item:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        used = (path / MANIFEST).stat().st_mtime
    except (OSError, ValueError):
        manifest, used = {}, path.stat().st_mtime
    return Item(path, manifest if isinstance(manifest, dict) else {}, folder_size(path), used)
