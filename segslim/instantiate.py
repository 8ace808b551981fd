"""Builds the object that a `_target_` config describes; what is wrong with it is said by its key in the config."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import hydra.utils

from segslim.errors import UserError

_HYDRAS_OWN = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}


def instantiate(node: Mapping[str, Any], key: str) -> Any:
    """Builds the object of `node` and, inside out, those nested in it; `key` is where the node stands in the config.

    Raises UserError naming the key, the target and the argument when a target does not exist, does not take an
    argument, misses one, or refuses a value.
    """
    _check(node, key)
    try:
        return hydra.utils.instantiate(dict(node), _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{key}: {node['_target_']} cannot be made of these arguments: {reason}") from error


def _check(node: Any, key: str) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_arguments(_locate(node["_target_"], key), node, key)
        for name, value in node.items():
            _check(value, f"{key}.{name}")
    elif isinstance(node, list):
        for position, value in enumerate(node):
            _check(value, f"{key}[{position}]")


def _locate(target: str, key: str) -> Callable[..., Any]:
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
