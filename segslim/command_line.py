"""What is typed: overrides as Hydra's grammar takes them, and what Hydra refuses, each in one line."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from segslim.errors import UserError

CONF = Path(__file__).parents[1] / "conf"
_OVERRIDE = re.compile(r"([+~]*[\w/@.-]+)=(.*)", re.DOTALL)
_STRUCTURED = re.compile(
    r"[\[{]|\w+\("
)  # a list, a mapping, or choice(...): to quote it would hide what is wrong in it


def quoted(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with quotes around each value that is plain text to a person and not to Hydra: a path
    with "=", brackets, a blank, letters beyond ASCII or ~ in it.

    Raises UserError, naming the override, for one that quotes alone do not make valid.
    """
    return [argument if argument.startswith("-") else _quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
        return argument
    key, value = match.groups()
    if (value == "null" and (CONF / key).is_dir()) or argument == "paddleseg=null":  # a ValueError of Hydra's
        raise UserError(f"{argument}: choose an option, or leave it out by ~{key}")
    if key.startswith("hydra."):  # of these nobody but Hydra sees the value
        value = expanded(value)
    try:
        OverridesParser.create().parse_override(f"{key}={value}")
        return f"{key}={value}"
    except HydraException as error:
        if (listed := _quoted_list(key, value)) is not None:
            return listed
        if _STRUCTURED.match(value) or "," in value or value[:1] in ("'", '"'):
            reason, example = str(error).strip().partition("\n")[0], quoted_value("...")
            raise UserError(
                f"{argument}: {reason}; where the value is text or a path, put it into two pairs of quotes, as in "
                f'"{key}={example}"'
            ) from None
        return f"{key}={quoted_value(value)}"


def _quoted_list(key: str, value: str) -> str | None:
    """The override with quotes around those entries of a plain list that need them; None where it is none."""
    if re.fullmatch(r"\[[^][{}'\"]*\]", value) is None:
        return None
    entries = []
    for entry in map(str.strip, value[1:-1].split(",")):
        try:
            OverridesParser.create().parse_override(f"{key}=[{entry}]")
            entries.append(entry)
        except HydraException:
            entries.append(quoted_value(entry))
    return f"{key}=[{','.join(entries)}]"


def quoted_value(text: str) -> str:
    """The text as a value of Hydra's grammar, whatever it holds."""
    return QuotedString(text, Quote.single).with_quotes()


def expanded(text: str) -> str:
    """The path that a shell would make of ~ or $NAME at its beginning, which it leaves alone behind KEY=.

    Raises UserError for the home of a user that there is not.
    """
    if text.startswith("~"):
        path = os.path.expanduser(text)  # noqa: PTH111 (that of pathlib drops a trailing slash)
        if re.match(r"~[\w.-]*(/|$)", path):  # a folder of that name would be made
            raise UserError(f"{text}: there is no user of that name; give the folder's path")
        return path
    return os.path.expandvars(text) if re.match(r"\$\w+(/|$)", text) else text


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
