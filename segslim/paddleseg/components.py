"""PaddleSeg's components (`type: BiSeNetV2`) as `_target_` nodes, known from the source of the installed PaddleSeg.

Importing PaddleSeg takes seconds; reading what its files register, and the arguments that these take, some hundredths.
"""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segslim.errors import UserError
from segslim.paddleseg.reading import Section

PACKAGES = ("transforms", "models", "models.backbones", "models.losses")
_REGISTERED = re.compile(r"^@manager\.(\w+)\.add_component\s+(?:class|def)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Component:
    """What `type: name` stands for. `registry` is PaddleSeg's: MODELS, BACKBONES, LOSSES or TRANSFORMS."""

    name: str
    registry: str
    target: str
    file: Path

    def arguments(self) -> tuple[list[str], list[str], bool]:
        """The names of its arguments, those without a default, and whether it takes any other."""
        definition = next(node for node in _parsed(self.file) if self._is(node))
        function: Any = definition
        if isinstance(definition, ast.ClassDef):
            inits = [node for node in definition.body if getattr(node, "name", "") == "__init__"]
            if not inits:
                return [], [], True
            function = inits[0]
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        needed = names[: len(names) - len(function.args.defaults)]
        return names, needed, function.args.kwarg is not None

    def _is(self, node: ast.stmt) -> bool:
        return isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == self.name


@cache
def components() -> Mapping[str, Component]:
    """Every component that the installed PaddleSeg registers, by its name."""
    found = {}
    for package in PACKAGES:
        folder = _folder().joinpath(*package.split("."))
        exports = _text(folder / "__init__.py")
        for file in sorted(folder.glob("*.py")):
            text = _text(file)
            for registry, name in _REGISTERED.findall(text):
                shown = _exported(name, file.stem, text, exports)
                module = package.partition(".")[0] if shown else f"{package}.{file.stem}"
                found[name] = Component(name, registry, f"paddleseg.{module}.{name}", file)
    return found


def node(section: Section, *registries: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{type: X, a: 1, b: {type: Y}}` as `{_target_: paddleseg.models.X, a: 1, b: {_target_: ...}}`.

    X and the types nested in it are of one of the `registries`. `given` are values for arguments that X takes and the
    section does not give. Raises UserError naming an unknown type, an argument that it does not take, or one it needs.
    """
    component = _named(section, registries)
    names, needed, takes_more = component.arguments()
    if not takes_more:
        section.only(["type", *names])
    values = {name: value for name, value in section.values.items() if name != "type"}
    for name, value in (given or {}).items():
        if name in names or takes_more:
            values.setdefault(name, value)
    missing = [name for name in needed if name not in values]
    if missing:
        raise section.fault(missing[0], f"has no value: {component.name} needs it")
    nested = Section(section.file, section.key, values)
    return {"_target_": component.target, **{name: _value(nested, name, registries) for name in values}}


def _value(section: Section, name: str, registries: tuple[str, ...]) -> Any:
    value = section.values[name]
    if isinstance(value, dict) and "type" in value:
        return node(section.section(name), *registries)
    if isinstance(value, list) and any(isinstance(entry, dict) and "type" in entry for entry in value):
        return [node(entry, *registries) for entry in section.sections(name)]
    return value


def _named(section: Section, registries: tuple[str, ...]) -> Component:
    name = section.word("type")
    component = components().get(name)
    if component is not None and component.registry in registries:
        return component
    known = [other.name for other in components().values() if other.registry in registries]
    near = difflib.get_close_matches(str(name), known, n=3)
    remedy = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"{section.file}: {section.path('type')}={name}: PaddleSeg has none of that name{remedy}")


def _folder() -> Path:
    found = importlib.util.find_spec("paddleseg")
    if found is None or found.origin is None:
        raise UserError("paddleseg is not installed: a PaddleSeg config needs it, run `uv sync`")
    return Path(found.origin).parent


@cache
def _parsed(file: Path) -> list[ast.stmt]:
    return ast.parse(_text(file)).body


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _exported(name: str, module: str, text: str, exports: str) -> bool:
    """Whether the package's __init__ (text `exports`) imports `name` from its `module`."""
    for imported in re.findall(rf"^from \.{module} import (.+)$", exports, re.MULTILINE):
        if imported.strip() != "*":
            if name in re.findall(r"\w+", imported):
                return True
        elif name in (listed := list(_listed(text))) or not listed:
            return True
    return False


def _listed(text: str) -> Iterator[str]:
    """The names in `__all__`."""
    found = re.search(r"^__all__ = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    return iter(re.findall(r"['\"](\w+)['\"]", found[1]) if found else [])
