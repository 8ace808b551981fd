"""Code of the user's own that a config names: `package.module:name`, or a `_target_`; importable as beside run.py."""

import ast
import difflib
import importlib
import inspect
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, get_type_hints

import hydra.utils
from pydantic import ValidationError

from segslim.errors import UserError
from segslim.files import reader, sha256_of

_INSTALLED = ("site-packages", "dist-packages")
_VERSIONED = ("segslim", "paddle", "paddleseg")  # the fingerprint holds their versions, wherever they lie


def is_path(name: str) -> bool:
    """Whether a name in the config is `package.module:name`."""
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


def named_modules(values: Iterable[Any]) -> Iterator[str]:
    """The modules that config values name: of `package.module:name`, and of each `package.module.Class`."""
    for value in values:
        if isinstance(value, dict):
            yield from named_modules(value.values())
        elif isinstance(value, (list, tuple)):
            yield from named_modules(value)
        elif isinstance(value, str):
            module = value.partition(":")[0] if is_path(value) else value.rpartition(".")[0]
            if module and all(part.isidentifier() for part in module.split(".")):
                yield module


def own_code(modules: Iterable[str]) -> dict[str, str]:
    """{module: SHA-256 of its file} of the user's own among `modules`, and of what they import of the user's own.

    Installed packages, the standard library and segslim are known by their versions. Nothing is imported: the files
    are found as Python would find them, and their import statements are read.
    """
    found: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        parts = name.split(".")
        # a module's packages are imported before it
        for ancestor in (".".join(parts[: end + 1]) for end in range(len(parts))):
            spec = None if ancestor in found else _spec(ancestor)
            if spec is not None and spec.origin is not None and _is_own(spec.origin):
                file = Path(spec.origin)
                found[ancestor] = sha256_of(file)
                pending += _imports(file, ancestor if file.name == "__init__.py" else ancestor.rpartition(".")[0])
    return dict(sorted(found.items()))


def _spec(name: str) -> ModuleSpec | None:
    """Where Python would find a module, without importing the packages above it, as importlib.util.find_spec would."""
    parent, _, tail = name.rpartition(".")
    if not parent:
        return None if name in _VERSIONED else PathFinder.find_spec(name)
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    # by its last part: of a dotted name, a folder without __init__.py looks up its parent among the imported modules
    return PathFinder.find_spec(tail, above.submodule_search_locations)


def _is_own(origin: str) -> bool:
    path = Path(origin)
    return path.suffix == ".py" and not path.is_relative_to(_standard_library()) and not set(_INSTALLED) & {*path.parts}


@cache
def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _imports(file: Path, package: str) -> list[str]:
    """The modules that the import statements of a file may name, wherever they stand in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # who imports it will say so
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]


_HYDRAS_OWN = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}


def instantiate(node: Mapping[str, Any], key: str, defaults: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Builds the object of `node` and, inside out, those nested in it; `key` is where the node stands in the config.

    `defaults` are for those of all the targets that take an argument of that name and are not given it.

    Raises UserError naming the key, the target and the argument when a target does not exist, does not take an
    argument, misses one, or refuses a value.
    """
    _check(node, key)
    try:
        return hydra.utils.instantiate(_filled(dict(node), defaults), _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{key}: {node['_target_']} cannot be made of these arguments: {reason}") from error


def _filled(node: Any, defaults: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_filled(value, defaults) for value in node]
    if not isinstance(node, Mapping):
        return node
    filled = {name: _filled(value, defaults) for name, value in node.items()}
    if "_target_" in node and defaults:
        taken = inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
        filled = {**{name: value for name, value in defaults.items() if name in taken}, **filled}
    return filled


def _check(node: Any, key: str) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_arguments(located(node["_target_"], key), node, key)
        for name, value in node.items():
            _check(value, f"{key}.{name}")
    elif isinstance(node, list):
        for position, value in enumerate(node):
            _check(value, f"{key}[{position}]")


def located(target: str, key: str) -> Callable[..., Any]:
    """What a `_target_` names; `key` is where it stands. Raises UserError where nothing is there."""
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError):
        module = None
    if module is not None and not hasattr(module, name):
        near = difflib.get_close_matches(
            name, [other for other in dir(module) if callable(getattr(module, other))], n=3
        )
        remedy = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{key}._target_={target}: {module_name} has no {name}{remedy}")
    try:
        return hydra.utils.get_object(target)
    except Exception as error:
        raise UserError(
            f"{key}._target_={target}: cannot be imported; give module.Name of an installed package"
        ) from error


def _check_arguments(target: Callable[..., Any], node: Mapping[str, Any], key: str) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # builtins may have none: the call itself will tell
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    given = node.keys() - _HYDRAS_OWN
    unknown = sorted(given - parameters.keys())
    if is_dataclass(target):  # one of our own: its annotations hold
        hints = get_type_hints(target)
        for name in sorted(given & hints.keys()):
            try:
                reader(hints[name]).validate_python(node[name])
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"].replace("Input should", "should")
                raise UserError(f"{key}.{name}={node[name]}: {reason}") from None
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise UserError(f"{key}.{unknown[0]}: {node['_target_']} does not take it; it takes {', '.join(parameters)}")
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in given
    ]
    if missing and not node.get("_args_") and not node.get("_partial_"):
        raise UserError(f"{key}.{missing[0]} has no value: {node['_target_']} needs it")
