"""PaddleSeg's components (`type: BiSeNetV2`) as `_target_` nodes, known from the source of the installed PaddleSeg.

Importing PaddleSeg takes seconds. Reading what its files register, and the arguments, takes hundredths of a second.
"""

import ast
import difflib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segslim.errors import UserError
from segslim.paddleseg.section import Section

PACKAGES = ("transforms", "models", "models.backbones", "models.losses", "optimizers", "datasets")
_REGISTERED = re.compile(r"^@manager\.(\w+)\.add_component\s+(?:class|def)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Component:
    """What `type: name` stands for. `registry` is PaddleSeg's: MODELS, BACKBONES, LOSSES or TRANSFORMS."""

    name: str
    registry: str
    target: str
    file: Path

    def arguments(self) -> tuple[list[str], list[str], bool]:
        """The names of its arguments, those without a default, and whether it takes any other (`**kwargs`)."""
        kinds = (ast.ClassDef, ast.FunctionDef)
        function: Any = next(node for node in _parsed(self.file) if isinstance(node, kinds) and node.name == self.name)
        if isinstance(function, ast.ClassDef):
            inits = [node for node in function.body if getattr(node, "name", "") == "__init__"]
            if not inits:  # inherited, from a class that may be in another file
                return [], [], True
            function = inits[0]
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        required = names[: len(names) - len(function.args.defaults)]
        return names, required, function.args.kwarg is not None


@cache
def components() -> Mapping[str, Component]:
    """Every component that the installed PaddleSeg registers, by name. Raises `UserError` if there is no PaddleSeg."""
    installed = importlib.util.find_spec("paddleseg")
    if installed is None or installed.origin is None:
        raise UserError("paddleseg is not installed: a PaddleSeg config needs it, run `uv sync`")
    found = {}
    for package in PACKAGES:
        folder = Path(installed.origin).parent.joinpath(*package.split("."))
        exports = (folder / "__init__.py").read_text(encoding="utf-8")
        for file in sorted(folder.glob("*.py")):
            text = file.read_text(encoding="utf-8")
            for registry, name in _REGISTERED.findall(text):
                # what paddleseg.optimizers exports last, by the same name, is Paddle's
                exported = package != "optimizers" and _is_exported(name, file.stem, text, exports)
                module = package.partition(".")[0] if exported else f"{package}.{file.stem}"
                found[name] = Component(name, registry, f"paddleseg.{module}.{name}", file)
    return found


def component_node(section: Section, *registries: str, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{type: X, a: 1, b: {type: Y}}` as `{_target_: paddleseg.models.X, a: 1, b: {_target_: ...}}`.

    X and the types nested in it are of one of the `registries`. `defaults` are values for arguments that X takes and
    the section does not give. Raises `UserError` for an unknown type, an unknown argument, or a missing one.
    """
    name = section.text("type")
    component = components().get(name)
    if component is None or component.registry not in registries:
        known = [other.name for other in components().values() if other.registry in registries]
        near = difflib.get_close_matches(name, known, n=3)
        remedy = f"; did you mean {' or '.join(near)}?" if near else ""
        installed = f"the installed PaddleSeg {importlib.metadata.version('paddleseg')}"
        raise UserError(f"{section.file}: {section.path('type')}={name}: {installed} has none of that name{remedy}")
    names, required, takes_more = component.arguments()
    if not takes_more:
        section.allow(["type", *names])
    values = {key: value for key, value in section.values.items() if key != "type"}
    values |= {
        key: value for key, value in (defaults or {}).items() if key not in values and (takes_more or key in names)
    }
    missing = [argument for argument in required if argument not in values]
    if missing:
        raise section.error(missing[0], f"has no value: {name} needs it")
    nested = section.replace(values)
    node = {"_target_": component.target}
    for key, value in values.items():
        # PaddleSeg passes some of them to `eval` (norm_layer, arm_type)
        if isinstance(value, str) and key != "pretrained" and not re.fullmatch(r"[\w.-]*|\$\{.*\}", value):
            raise section.error(key, f"should be a name, and is {value!r}")
        if isinstance(value, dict) and "type" in value:
            value = component_node(nested.section(key), *registries)
        elif isinstance(value, list) and any(isinstance(entry, dict) and "type" in entry for entry in value):
            value = [component_node(entry, *registries) for entry in nested.sections(key)]
        node[key] = value
    return node


def schedule_node(section: Section, options: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a scheduler of paddle.optimizer.lr. Raises `UserError` for an unknown one, or an unknown option."""
    name = section.text("type")
    file = _schedules()
    known = [node.name for node in _parsed(file) if isinstance(node, ast.ClassDef)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        remedy = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{section.file}: {section.path('type')}={name}: Paddle has no schedule of that name{remedy}")
    target = f"paddle.optimizer.lr.{name}"
    names, _, _ = Component(name, "SCHEDULES", target, file).arguments()
    section.allow(["type", "learning_rate", "warmup_iters", "warmup_start_lr", *names])
    return {"_target_": target, **options}


def _schedules() -> Path:
    """The source of paddle.optimizer.lr, beside PaddleSeg or wherever Paddle is."""
    paddleseg = importlib.util.find_spec("paddleseg")
    folders = [Path(paddleseg.origin).parents[1] / "paddle"] if paddleseg and paddleseg.origin else []
    paddle = importlib.util.find_spec("paddle")
    folders += [Path(paddle.origin).parent] if paddle and paddle.origin else []
    for folder in folders:
        if (folder / "optimizer" / "lr.py").is_file():
            return folder / "optimizer" / "lr.py"
    raise UserError("paddle is not installed: a PaddleSeg config needs it, run `uv sync`")


@cache
def _parsed(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def _is_exported(name: str, module: str, text: str, exports: str) -> bool:
    """Whether a package imports `name` from its `module`, by their sources: `exports` (its __init__) and `text`."""
    for imported in re.findall(rf"^from \.{module} import (.+)$", exports, re.MULTILINE):
        if imported.strip() != "*":
            if name in re.findall(r"\w+", imported):
                return True
            continue
        listed = re.search(r"^__all__ = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
        if listed is None or name in re.findall(r"['\"](\w+)['\"]", listed[1]):
            return True
    return False
