"""Reads deploy.yaml of an export folder, as a stranger's: plain values, every one of them checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from segslim.colours import Colour, palette
from segslim.errors import UserError
from segslim.predict.preprocessing import Transform, transform_of
from segslim.predict.wording import shown

MOST_BYTES = 1 << 20
MODEL_FILES = ("model.onnx", "model.json", "model.pdmodel", "model.pdiparams")

Level = Annotated[int, Field(ge=0, le=255)]
FileName = Annotated[str, Field(pattern=r"^[^/\\:\x00]*[^/\\:\x00.][^/\\:\x00]*$", max_length=255)]


@dataclass(frozen=True)
class _DeployFile:
    """What of `Deploy:` is read; PaddleSeg writes the keys without a default, and may write others."""

    model: FileName
    params: FileName
    transforms: Annotated[list[dict[str, Any]], Field(max_length=32)]
    input_shape: Annotated[list[int | None], Field(min_length=4, max_length=4)] | None = None
    output_op: Literal["argmax", "softmax", "none"] | None = None
    classes: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    colours: Annotated[list[tuple[Level, Level, Level]], Field(min_length=1, max_length=256)] | None = None


@dataclass(frozen=True)
class Deployment:
    """An export folder: its transforms, the (width, height) of its input or None for any, and its classes' colours."""

    folder: Path
    transforms: tuple[Transform, ...]
    input_size: tuple[int, int] | None
    classes: tuple[str, ...] | None
    colours: tuple[Colour, ...]


def read_deployment(folder: Path) -> Deployment:
    """Reads the folder's deploy.yaml. Raises UserError for what in it is missing or not admitted."""
    if not folder.is_dir():
        raise UserError(f"the export folder {folder} does not exist: give the folder that holds deploy.yaml")
    file = folder / "deploy.yaml"
    if not file.is_file():
        raise UserError(f"{folder} holds no deploy.yaml: give the folder that an export wrote")
    for name in ("deploy.yaml", *MODEL_FILES):
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder / name} is a link out of the export folder: put the file itself there")
    deploy = _validated(_loaded(file), file)
    number = len(deploy.colours or deploy.classes or ()) or 256
    return Deployment(
        folder=folder,
        transforms=tuple(
            transform_of(node, f"{file}: transforms[{index}]") for index, node in enumerate(deploy.transforms)
        ),
        input_size=_input_size(deploy.input_shape),
        classes=tuple(deploy.classes) if deploy.classes else None,
        colours=tuple(palette(number, deploy.colours)),
    )


def _loaded(file: Path) -> Any:
    if file.stat().st_size > MOST_BYTES:
        raise UserError(f"{file} is larger than {MOST_BYTES} bytes, which no deploy.yaml is: export again")
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        reason = getattr(error, "problem", None) or type(error).__name__
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise UserError(f"{file}{line} is not plain YAML ({shown(reason)}): export again") from None


def _validated(content: Any, file: Path) -> _DeployFile:
    deploy = content.get("Deploy") if isinstance(content, dict) else None
    if not isinstance(deploy, dict):
        raise UserError(f"{file} has no mapping 'Deploy': give the folder that an export wrote")
    known = {key: value for key, value in deploy.items() if key in _DeployFile.__dataclass_fields__}
    try:
        return TypeAdapter(_DeployFile).validate_python(known)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = fault["loc"][0]
        if fault["type"] in ("missing", "missing_argument"):
            raise UserError(f"{file}: Deploy.{key} has no value: export again") from None
        raise UserError(f"{file}: Deploy.{key}={shown(fault['input'])}: {fault['msg']}") from None


def _input_size(shape: list[int | None] | None) -> tuple[int, int] | None:
    """None where a side is null or -1, as PaddleSeg writes it."""
    if shape is None:
        return None
    height, width = shape[2:]
    return (width, height) if height is not None and width is not None and min(height, width) > 0 else None
