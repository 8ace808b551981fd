"""A Deployment: the folder that ships, as a value that is never changed. Its file names stand here and nowhere else.

model.onnx               what the ONNX engines run: float, or int8 by QuantizeLinear and DequantizeLinear
as_given.onnx            the same network of an exported graph, with the input and outputs that this had
model.json               Paddle's inference model (model.pdmodel by Paddle 2.6), with model.pdiparams; float only
photo.onnx               a photo in, its mask out (export.preprocess)
openvino.xml, .bin       OpenVINO's model, where it was asked for (export.formats)
model.mnn                MNN's
model.ncnn.param, .bin   ncnn's, which gives logits whatever `output` says
paddle_int8/             the int8 network in Paddle 2.6's own format, which TensorRT in Paddle Inference reads
deploy.yaml              transforms, input, output, classes, precision: as PaddleSeg's deploy/python/infer.py reads it
cost.json, export.json   FLOPs, parameters and bytes; how closely the files agree with the network
quantization.json        which tensors are int8, and why the others are not
tensorrt/                a cache of TensorRT engines, built for one GPU: never copied

Needs neither Paddle nor ONNX: `segslim.predict` reads the folders of strangers with it.
"""

import dataclasses
import json
import os
import reprlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError

from segslim import colours as class_colours
from segslim.errors import UserError
from segslim.files import open_regular, read_plain, reader

ONNX_FILE = "model.onnx"
GIVEN_FILE = "as_given.onnx"
PADDLE_MODELS = ("model.json", "model.pdmodel")  # Paddle 3, Paddle 2.6
PADDLE_PARAMS = "model.pdiparams"
PADDLE_INT8 = "paddle_int8"
OPENVINO_FILES = ("openvino.xml", "openvino.bin")
PHOTO_FILE = "photo.onnx"
MNN_FILE = "model.mnn"
NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin")
DEPLOY_FILE, COST_FILE, REPORT_FILE, QUANTIZATION_FILE = "deploy.yaml", "cost.json", "export.json", "quantization.json"
PADDLE_FILES = (*PADDLE_MODELS, PADDLE_PARAMS, f"{PADDLE_PARAMS}.info")
PADDLE_INT8_FILES = tuple(f"{PADDLE_INT8}/{name}" for name in PADDLE_FILES)
RECORDS = (COST_FILE, REPORT_FILE, QUANTIZATION_FILE)
FORMAT_FILES = (*OPENVINO_FILES, MNN_FILE, *NCNN_FILES)
ALL_FILES = (
    *(ONNX_FILE, PHOTO_FILE, GIVEN_FILE, *PADDLE_FILES, *PADDLE_INT8_FILES, *FORMAT_FILES),
    *(*RECORDS, DEPLOY_FILE),
)

LONGEST_WORDS = 120  # of a stranger's value or error that a message repeats

Output = Literal["argmax", "softmax", "logits"]
Level = Annotated[int, Field(ge=0, le=255)]
Dimension = Annotated[int, Field(ge=-1, le=1 << 20)] | None
FileName = Annotated[str, Field(pattern=r"^[^/\\:\x00]*[^/\\:\x00.][^/\\:\x00]*$", max_length=255)]


@dataclass(frozen=True)
class Precision:
    """`weights` is float32 or int8; `compute` are the float types that engines may try for all that is not int8.

    Where `compute` is empty, the one of the config (`engine.precision`) is used. `target` names the processors on which
    int8 kernels compute the file exactly (export.target); None of a float file, or where nobody said.
    """

    weights: Literal["float32", "int8"] = "float32"
    compute: tuple[Literal["float32", "bfloat16", "float16"], ...] = ()
    target: str | None = None

    @property
    def is_int8(self) -> bool:
        return self.weights == "int8"


@dataclass(frozen=True)
class Cost:
    """`flops` are multiply-accumulates for one image, `params` the trained numbers, `size_bytes` the file's size.

    `layers` are the flops of each layer that has a weight, by the name of that, in order of execution.
    """

    flops: int
    params: int
    size_bytes: int
    layers: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how closely it agrees with the network.

    `difference` is the largest difference of two logits divided by the largest logit, before quantization;
    `equal_pixels` the share of pixels that get the same class.
    """

    network: str
    input_name: str
    input_shape: tuple[int | None, ...]
    output: str
    output_dtype: str
    difference: float
    equal_pixels: float
    checked_shapes: tuple[tuple[int, ...], ...]
    seconds: float  # without the check
    versions: dict[str, str]


@dataclass(frozen=True)
class _DeployFile:
    """The keys of `Deploy:` that are read. PaddleSeg writes those without a default, and may write others."""

    model: FileName
    params: FileName
    transforms: Annotated[list[dict[str, Any]], Field(max_length=32)]
    input_shape: Annotated[list[Dimension], Field(min_length=4, max_length=4)] | None = None
    output_op: Literal["argmax", "softmax", "none"] | None = None
    classes: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    colours: Annotated[list[tuple[Level, Level, Level]], Field(min_length=1, max_length=256)] | None = None
    max_value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    precision: Literal["float32", "int8"] = "float32"
    compute: Annotated[tuple[Literal["float32", "bfloat16", "float16"], ...], Field(max_length=3)] = ()
    target: Literal["avx2", "vnni", "arm", "any"] | None = None
    miou: Annotated[float, Field(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class Deployment:
    """An exported network and how to use it.

    `transforms` are PaddleSeg's, as deploy.yaml lists them; `input_shape` is N,C,H,W with None for what is dynamic, or
    None where nothing is said of it; `output` is class ids N,H,W ("argmax") or N,C,H,W ("softmax", "logits"), None
    where PaddleSeg did not write it; `max_value` is what image files hold for white, None for the largest number of
    their type; `classes` and `colours` are the name and [red, green, blue] of each class; `miou` what was measured of
    it, where that was added (see `with_miou`).
    """

    kind: ClassVar[str] = "deployment"

    folder: Path
    transforms: tuple[dict[str, Any], ...] = ()
    input_shape: tuple[int | None, ...] | None = None
    output: Output | None = None
    max_value: float | None = None
    classes: tuple[str, ...] | None = None
    colours: tuple[class_colours.Colour, ...] | None = None
    precision: Precision = Precision()
    miou: float | None = None
    single_file: Path | None = None  # of from_onnx: there is no folder to it

    @classmethod
    def load(cls, folder: Path) -> "Deployment":
        """Reads a folder that may come from anybody, as data. Raises UserError for what is missing or not admitted."""
        if not folder.is_dir():
            raise UserError(f"the export folder {folder} does not exist: give the folder that holds {DEPLOY_FILE}")
        file = folder / DEPLOY_FILE
        if not file.is_file():
            raise UserError(f"{folder} holds no {DEPLOY_FILE}: give the folder that an export wrote")
        for name in ALL_FILES:
            # not resolve(), which raises at a link that leads to itself
            if not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)):
                raise UserError(f"{folder / name} is a link out of the export folder: put the file itself there")
        deploy = _read_deploy_file(file)
        shape = deploy.input_shape and tuple(None if side in (None, -1) else side for side in deploy.input_shape)
        return cls(
            folder=folder,
            transforms=tuple(deploy.transforms),
            input_shape=shape or None,
            output="logits" if deploy.output_op == "none" else deploy.output_op,
            max_value=deploy.max_value,
            classes=tuple(deploy.classes) if deploy.classes else None,
            colours=tuple(deploy.colours) if deploy.colours else None,
            precision=Precision(deploy.precision, deploy.compute, deploy.target),
            miou=deploy.miou,
        )

    @classmethod
    def from_onnx(cls, file: Path) -> "Deployment":
        """A bare .onnx file, for the engines that read ONNX. Raises UserError where it does not exist."""
        if not file.is_file():
            raise UserError(f"{file} does not exist; give a deployment's folder or an .onnx file")
        return cls(folder=file.parent, single_file=file)

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        input_shape: Sequence[int | None] | None,
        output: Output | None,
        max_value: float | None = None,
        transforms: Sequence[dict[str, Any]] = (),
        classes: Sequence[str] | None = None,
        colours: Sequence[Sequence[int]] | None = None,
        precision: Precision = Precision(),
        miou: float | None = None,
    ) -> "Deployment":
        """Writes the deploy.yaml of a folder that holds the model's files, and returns what `load` makes of it.

        Args:
            folder: holds model.onnx, and Paddle's model where there is one; removed from an int8 folder.
            input_shape: N,C,H,W, None for what is dynamic.
            output: "argmax", "softmax" or "logits".
            max_value: what an image's files hold for white.
            transforms: as `{type: Normalize, mean: [...], std: [...]}`.
            classes: a name for each class.
            colours: [red, green, blue] of each class, 0 to 255.
            precision: of the weights and of the computation.
            miou: measured of it, 0 to 1.
        """
        if precision.is_int8:  # Paddle Inference would run the Paddle model, which is float
            for name in PADDLE_FILES:
                (folder / name).unlink(missing_ok=True)
        present = [name for name in (*PADDLE_MODELS, ONNX_FILE) if (folder / name).is_file()]
        if not present:
            raise UserError(f"{folder} holds neither {ONNX_FILE} nor Paddle's model: export again")
        deploy = {
            # PaddleSeg's keys; an ONNX file is its own parameters
            "model": present[0],
            "params": ONNX_FILE if present[0] == ONNX_FILE else PADDLE_PARAMS,
            "transforms": [dict(transform) for transform in transforms],
            "input_shape": input_shape and list(input_shape),
            "output_op": "none" if output == "logits" else output,
            "output_dtype": "int32" if output == "argmax" else "float32",
            # our own
            "max_value": max_value,
            "classes": classes and list(classes),
            "colours": colours and [list(colour) for colour in colours],
            "precision": precision.weights,
            "compute": list(precision.compute),
            "target": precision.target,
            "miou": miou,
        }
        content = {"Deploy": {key: value for key, value in deploy.items() if value is not None}}
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        (folder / DEPLOY_FILE).write_text(text, encoding="utf-8")
        return cls.load(folder)

    def save(self, folder: Path) -> "Deployment":
        """A copy in another folder, which is made. Files that are not a Deployment's are left behind."""
        if folder == self.folder:
            return self
        for name in ALL_FILES:
            if (self.folder / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / name, folder / name)
        return dataclasses.replace(self, folder=folder)

    def with_miou(self, miou: float, folder: Path) -> "Deployment":
        """A copy in `folder` whose deploy.yaml and ONNX files say what mIoU was measured of it."""
        import onnx

        self.save(folder)
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["folder"], values["single_file"]
        for name in (ONNX_FILE, PHOTO_FILE):
            if (folder / name).is_file():
                model = onnx.load(folder / name)
                model.metadata_props.add(key="miou", value=json.dumps(miou))
                onnx.save(model, folder / name)
        return self.write(folder, **{**values, "miou": miou})

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(width, height) of the input, or None for any."""
        height, width = self.input_shape[2:] if self.input_shape else (None, None)
        return (width, height) if width and height else None

    @property
    def channels(self) -> int:
        """Of an image."""
        return (self.input_shape and self.input_shape[1]) or 3

    @property
    def palette(self) -> list[class_colours.Colour]:
        """A colour for each class; of 256 classes where deploy.yaml names none."""
        return class_colours.palette(len(self.classes or ()) or 256, self.colours)

    @property
    def onnx_file(self) -> Path:
        """Raises UserError where the deployment has none."""
        file = self.single_file or self.folder / ONNX_FILE
        if not file.is_file():
            raise UserError(f"{file} does not exist: export again, or choose engine paddle")
        return file

    @property
    def paddle_files(self) -> tuple[Path, Path]:
        """The float model (model.json or model.pdmodel) and its parameters. Raises UserError where there are none."""
        files = None if self.single_file else _paddle_files(self.folder)
        if files is None:
            model = " or ".join(PADDLE_MODELS)
            raise UserError(f"{self.folder} holds no {model} with {PADDLE_PARAMS}: export again, or choose onnxruntime")
        return files

    @property
    def paddle_int8(self) -> tuple[Path, Path] | None:
        """The int8 model in Paddle 2.6's own format, and its parameters; None where there is none."""
        return None if self.single_file else _paddle_files(self.folder / PADDLE_INT8)

    @property
    def photo_file(self) -> Path:
        """Takes a photo as it is (see segslim.deployment.photo). Raises UserError where the deployment has none."""
        file = self.folder / PHOTO_FILE
        if self.single_file is not None or not file.is_file():
            raise UserError(f"{self.folder} has no {PHOTO_FILE}: export again with export.preprocess=true")
        return file

    @property
    def openvino_file(self) -> Path:
        """What OpenVINO reads: its own model, and the ONNX file where there is none."""
        own = self.folder / OPENVINO_FILES[0]
        return own if self.single_file is None and own.is_file() else self.onnx_file

    @property
    def mnn_file(self) -> Path:
        """Raises UserError where the deployment has none."""
        return self._file_of("mnn", MNN_FILE)

    @property
    def ncnn_files(self) -> tuple[Path, Path]:
        """Its layers, and their weights. Raises UserError where the deployment has none."""
        return self._file_of("ncnn", NCNN_FILES[0]), self._file_of("ncnn", NCNN_FILES[1])

    def _file_of(self, name: str, file: str) -> Path:
        if self.single_file is not None or not (self.folder / file).is_file():
            where = self.single_file or self.folder
            raise UserError(f"{where} has no {file}: export again with export.formats=[paddle,onnx,{name}]")
        return self.folder / file

    @property
    def engine_cache(self) -> Path:
        """Where TensorRT keeps the engines that it built."""
        return self.folder / "tensorrt"

    @property
    def cost(self) -> Cost:
        """Raises UserError where it was not counted."""
        return self._record(COST_FILE, Cost)

    @property
    def report(self) -> ExportReport:
        """Raises UserError where the folder is not of this export."""
        return self._record(REPORT_FILE, ExportReport)

    @property
    def quantization(self) -> dict[str, Any] | None:
        """{tensors, integer_nodes, floats: [{tensor, op_type, reason}]} of an int8 deployment, None of a float one."""
        if not (self.folder / QUANTIZATION_FILE).is_file():
            return None
        return self._record(QUANTIZATION_FILE, dict[str, Any])

    def _record(self, name: str, kind: Any) -> Any:
        try:
            with open_regular(self.folder / name) as stream:
                return reader(kind).validate_json(stream.read())
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / name} cannot be read ({one_line(error)}): export again") from None

    def check_onnx_file(self) -> None:
        """Raises UserError where the ONNX file is none, or keeps weights in other files, which could be anywhere."""
        import onnx

        file = self.onnx_file
        try:
            model = onnx.load(file, load_external_data=False)
        except Exception as error:  # protobuf has several
            raise UserError(f"{file} is not an ONNX file ({one_line(error)}): export again") from None
        training = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
        bodies = [model.graph, *model.functions, *training]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for body in bodies for tensor in _tensors(body)):
            raise UserError(f"{file} keeps its weights in other files: export again")


def write_record(folder: Path, name: str, content: Any) -> None:
    """Writes one of RECORDS: a dataclass of plain values."""
    text = json.dumps(dataclasses.asdict(content), indent=1, ensure_ascii=False)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def precision_in_words(precision: Precision, compute: str) -> str:
    """ "bfloat16", or "int8 for vnni, rest bfloat16": the type that all is computed in that is not int8."""
    target = f" for {precision.target}" if precision.target else ""
    return f"int8{target}, rest {compute}" if precision.is_int8 else compute


def shown(value: Any) -> str:
    """A stranger's value as Python writes it, cut short; nested lists that grow without end take little time, too."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return _cut(short.repr(value))


def one_line(error: BaseException) -> str:
    """What the error says, or its type where it says nothing."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_WORDS else text[:LONGEST_WORDS] + "..."


def _paddle_files(folder: Path) -> tuple[Path, Path] | None:
    model = next((folder / name for name in PADDLE_MODELS if (folder / name).is_file()), None)
    params = folder / PADDLE_PARAMS
    return (model, params) if model is not None and params.is_file() else None


def _read_deploy_file(file: Path) -> _DeployFile:
    try:
        content = read_plain(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not plain YAML ({one_line(error)}): export again") from None
    deploy = content.get("Deploy") if isinstance(content, dict) else None
    if not isinstance(deploy, dict):
        raise UserError(f"{file} has no mapping 'Deploy': give the folder that an export wrote")
    known = {key: value for key, value in deploy.items() if key in _DeployFile.__dataclass_fields__}
    try:
        return reader(_DeployFile).validate_python(known)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = fault["loc"][0]
        if fault["type"] in ("missing", "missing_argument"):
            raise UserError(f"{file}: Deploy.{key} has no value: export again") from None
        raise UserError(f"{file}: Deploy.{key}={shown(fault['input'])}: {fault['msg']}") from None


def _tensors(body: Any) -> Iterator[Any]:
    """Those of a graph, or of a function, which has nodes alone; at any depth."""
    sparse_tensors: Iterable[Any] = getattr(body, "sparse_initializer", ())
    yield from getattr(body, "initializer", ())
    for sparse in sparse_tensors:
        yield from (sparse.values, sparse.indices)
    for node in body.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer or inner.sparse_initializer:
                    yield from _tensors(inner)
