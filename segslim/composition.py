"""What Hydra and OmegaConf refuse to compose, in one line that names the key and what can be given instead."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from hydra.errors import MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

CONF = Path(__file__).parents[1] / "conf"


def in_one_line(error: Exception) -> str:
    """Of an unknown option or key, what there is; of all else, what was said first, and by what it was caused."""
    cause = error.__cause__ or error
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: there is no such option; {_remedy(option, error.options)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and "is not in struct" in str(cause):
        known = cause.parent_node if isinstance(cause.parent_node, Mapping) else {}
        return _unknown_key(str(cause.full_key), (str(name) for name in known if name != "hydra"))
    said = (str(each).strip().partition("\n")[0] for each in (error, cause))
    return ": ".join(dict.fromkeys(filter(None, said)))


def _unknown_key(key: str, known: Iterable[str]) -> str:
    """`known` are the keys beside which it would stand."""
    section, _, name = key.rpartition(".")
    having = [file.stem for file in sorted((CONF / section).glob("*.yaml")) if section and name in _keys(file)]
    if having:
        return f"{key}: there is no such key in this {section}; choose one that has it: {section}={' or '.join(having)}"
    return f"{key}: there is no such key; {_remedy(name, known, prefix=f'{section}.' if section else '')}"


def _keys(option: Path) -> Iterable[str]:
    found = yaml.safe_load(option.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else ()


def _remedy(given: str, choices: Iterable[str], prefix: str = "") -> str:
    listed = list(choices)
    near = [prefix + choice for choice in difflib.get_close_matches(given, listed, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(prefix + one for one in listed)}" if listed else "remove it"
