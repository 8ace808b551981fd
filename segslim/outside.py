"""What a config names that is not of this package: `package.module:name`, importable as beside run.py."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from segslim.disk import sha256_of
from segslim.errors import UserError


def is_path(name: str) -> bool:
    """Whether a name in the config is one of something outside."""
    return ":" in name


def import_path(path: str, key: str) -> Any:
    """What stands at `package.module:name`; `key` is where the config says so. Raises UserError where nothing does."""
    try:
        return resolve_name(path)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{key}={path}: cannot be imported ({reason}); give package.module:name, importable as beside run.py"
        ) from error


def code_of(modules: Iterable[str]) -> dict[str, str]:
    """{module: SHA-256 of its file}, of those that have one: what is made by it changes with it. Imports none."""
    found = {}
    for module in modules:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):  # told where it is used
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            found[module] = sha256_of(Path(spec.origin))
    return found
