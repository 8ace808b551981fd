"""A PaddleSeg YAML file with what it inherits, and sections of it that name themselves in errors."""

import difflib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segslim.command_line import MULTI_LABEL
from segslim.errors import UserError
from segslim.files import read_plain

logger = logging.getLogger(__name__)

BASE, INHERITED = "_base_", "_inherited_"
MOST_FILES = 50  # that one inherits from


@dataclass(frozen=True)
class Section:
    """A mapping of a file: `key` is its place in the file, "" for the file itself."""

    file: str
    key: str
    values: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def path(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name

    def replace(self, values: Mapping[str, Any]) -> "Section":
        """A section of the same place with other values."""
        return Section(self.file, self.key, values)

    def get(self, name: str, default: Any = None) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def require(self, name: str) -> Any:
        """The value of `name`. Raises `UserError` if there is none."""
        if self.get(name) is None:
            raise self.error(name, "has no value: give it one")
        return self.values[name]

    def section(self, name: str) -> "Section":
        """The mapping of `name`. Raises `UserError` if there is none."""
        return self._as_section(self.path(name), self.require(name))

    def sections(self, name: str) -> Iterator["Section"]:
        """The mappings in the list of `name`."""
        entries = self.require(name)
        if not isinstance(entries, list):
            raise self.error(name, "should be a list of entries with a `type`")
        for position, entry in enumerate(entries):
            yield self._as_section(f"{self.path(name)}[{position}]", entry)

    def number(self, name: str, default: float | None = None) -> float:
        """The number of `name`; YAML 1.1 reads 1e-5, which has no point, as text."""
        value = self.require(name) if default is None else self.get(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise self.error(name, f"should be a number, and is {value!r}")
        return number

    def integer(self, name: str, default: int | None = None) -> int:
        """The integer of `name`."""
        number = self.number(name, default)
        if number != int(number):
            raise self.error(name, f"should be an integer, and is {number}")
        return int(number)

    def text(self, name: str) -> str:
        """The text of `name`."""
        value = self.require(name)
        if not isinstance(value, str):
            raise self.error(name, f"should be text, and is {value!r}")
        return value

    def size(self, name: str) -> list[int]:
        """[width, height] of `name`."""
        value = self.require(name)
        if not (isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)):
            raise self.error(name, f"= {value!r} should be [width, height] in pixels")
        return value

    def allow(self, known: Collection[str]) -> None:
        """Raises `UserError` naming all keys that are not among the `known`."""
        unknown = [name for name in self.values if name not in known]
        if unknown:
            near = difflib.get_close_matches(str(unknown[0]), list(known), n=1)
            remedy = f"did you mean {near[0]}?" if near else "remove it"
            keys = ", ".join(self.path(name) for name in unknown)
            raise UserError(f"{self.file}: {keys}: not known or not supported here; {remedy}")

    def error(self, name: str, message: str) -> UserError:
        return UserError(f"{self.file}: {self.path(name)} {message}")

    def warn(self, name: str, message: str) -> None:
        warn_once(f"{self.file}: {self.path(name)} {message}")

    def _as_section(self, key: str, value: Any) -> "Section":
        if not isinstance(value, Mapping):
            raise UserError(f"{self.file}: {key} should be a mapping, and is {value!r}")
        return Section(self.file, key, value)


@cache
def warn_once(message: str) -> None:
    """Logs a warning, once in a process: Hydra composes a config several times."""
    logger.warning(message)


def read(file: str) -> Section:
    """The config of a PaddleSeg YAML file, merged over the files that its `_base_` names.

    As in PaddleSeg, `_base_` is relative to the file that has it, a file wins over its bases and an earlier base over
    a later one, and a mapping with `_inherited_: False` replaces the inherited one instead of being merged into it.

    Raises `UserError`, in one line, for a file that is missing, is no YAML mapping, or inherits from itself.
    """
    config = _without_inherited(_read_with_bases(Path(file), (), []))
    _check_plain(config, file, "")
    return Section(file, "", config)


def _check_plain(value: Any, file: str, key: str) -> None:
    """PaddleSeg's files hold values. What Hydra would build or fill in (`_target_`, `${...}`) is refused."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "use_multilabel" and inner:
                raise UserError(f"{file}: {key}{name}: {MULTI_LABEL}")
            if str(name).startswith("_"):
                raise UserError(f"{file}: {key}{name}: PaddleSeg has no such key: remove it")
            _check_plain(inner, file, f"{key}{name}.")
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, file, key)
    elif isinstance(value, str) and not _may_be_a_path(value):
        raise UserError(f"{file}: {key.rstrip('.')}={value[:60]}: is longer than any path, or holds a null byte")
    elif isinstance(value, str) and "${" in value:
        raise UserError(
            f"{file}: {key.rstrip('.')}={value}: holds ${{, which PaddleSeg does not fill in: write the value"
        )


def _may_be_a_path(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 4096 and "\0" not in value


def _read_with_bases(file: Path, inheriting: tuple[Path, ...], before: list[Path]) -> dict[str, Any]:
    """`before` are the files that were read until now: bases that name their own twice would be read for ever."""
    before.append(file)
    if len(before) > MOST_FILES:
        raise UserError(f"{before[0]}: {BASE} leads to more than {MOST_FILES} files: write fewer")
    if file.resolve() in [path.resolve() for path in inheriting]:
        chain = " -> ".join(map(str, (*inheriting, file)))
        raise UserError(f"{inheriting[0]}: {BASE} comes back to itself: {chain}")
    named = f"{inheriting[-1]}: {BASE}={file}" if inheriting else str(file)
    if file.suffix not in (".yml", ".yaml"):
        raise UserError(f"{named}: a PaddleSeg config is a .yml or .yaml file")
    try:
        config = read_plain(file)
    except OSError as error:
        raise UserError(f"{named}: cannot be read ({error.strerror}); give a path from the working folder") from None
    except ValueError as error:
        raise UserError(f"{named}: is no valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{named}: should hold keys and values, as `model: ...`")
    bases = config.pop(BASE, None) or []
    for base in bases if isinstance(bases, list) else [bases]:
        if not _may_be_a_path(base):
            raise UserError(f"{named}: {BASE}={str(base)[:60]}: should be the path of a file, or a list of them")
        config = _merge(config, _read_with_bases(file.parent / base, (*inheriting, file), before))
    return config


def _merge(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`config` over its `base`."""
    if config.get(INHERITED, True) is False:
        return config
    merged = dict(base)
    for key, value in config.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(value, base[key]) if both else value
    return merged


def _without_inherited(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_inherited(inner) for key, inner in value.items() if key != INHERITED}
    return [_without_inherited(inner) for inner in value] if isinstance(value, list) else value
