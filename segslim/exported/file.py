"""From an .onnx file to a graph that the rest can take for granted, or one line of why not; nothing of it is run."""

from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from segslim.errors import UserError
from segslim.files import open_regular
from segslim.onnx_graph import clean
from segslim.onnx_tools import inputs_of

OLDEST_OPSET = 11
LARGEST = (1 << 31) - 1  # bytes: protobuf holds no more in one message


def read_graph(file: Path) -> ModelProto:
    """The graph of an .onnx file, cleaned; nothing of it is run. Raises UserError as ExportedNetwork does."""
    where = f"model.file={file}"
    model = _parsed(file, where)
    _beside(model, file)
    try:
        load_external_data_for_model(model, str(file.resolve().parent))
    except Exception as error:  # whatever onnx raises of an offset or a length
        raise UserError(f"{where}: the weights beside it cannot be read ({error}); export it again") from None
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not model.graph.node or not opset:
        raise UserError(f"{where}: is no ONNX file; give one that a framework has exported")
    if opset < OLDEST_OPSET:
        raise UserError(f"{where}: is of opset {opset}; export it again with opset {OLDEST_OPSET} or above")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise UserError(f"{where}: {node.op_type} is an operator of {node.domain}; export it with ONNX's own alone")
        if any(each.HasField("g") or each.graphs for each in node.attribute):
            raise UserError(
                f"{where}: {node.op_type} branches or loops, which pruning cannot follow; export it for one size"
            )
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx's and protobuf's have no base but this
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{where}: onnx.checker refuses it ({reason}); export it again") from None
    inputs = inputs_of(model.graph)
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise UserError(f"{where}: has the inputs {names}; a network of one image has one")
    kind, rank = inputs[0].type.tensor_type.elem_type, len(inputs[0].type.tensor_type.shape.dim)
    if rank != 4:
        raise UserError(f"{where}: its input {inputs[0].name} has {rank} dimensions; images have 4: N,C,H,W or N,H,W,C")
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise UserError(f"{where}: its input is of {_type(kind)}; export it with an input of float32, or of uint8")
    half = next(
        (t for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)), None
    )
    if half is not None:
        raise UserError(f"{where}: {half.name} is of {_type(half.data_type)}; export the network in float32")
    clean(model)
    _own_vectors(model.graph)
    return model


def _own_vectors(graph: GraphProto) -> None:
    """Gives each reader of a bias, scale or statistic a copy of its own.

    Exporters keep one of several that hold the same numbers, as those of a new network do; the channels of their layers
    would live and die together for it.
    """
    vectors = {t.name: t for t in graph.initializer if len(t.dims) == 1 and t.data_type == TensorProto.FLOAT}
    taken: set[str] = set()
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in vectors and name in taken:
                node.input[at] = f"{name}:{node.output[0]}:{at}"
                copy = graph.initializer.add()
                copy.CopyFrom(vectors[name])
                copy.name = node.input[at]
            taken.add(name)


def files_of(file: Path) -> list[Path]:
    """An .onnx file, and those beside it that hold its weights. Raises UserError where one is missing."""
    model = _parsed(file, f"model.file={file}")
    return [file, *_beside(model, file)]


def _beside(model: ModelProto, file: Path) -> list[Path]:
    folder, found = file.resolve().parent, []
    for tensor in filter(uses_external_data, model.graph.initializer):
        other = ExternalDataInfo(tensor).location
        path = (folder / other).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise UserError(f"model.file={file}: its weights are in {other}, which is not a file beside it")
        found.append(path)
    return sorted(set(found))


def _parsed(file: Path, where: str) -> ModelProto:
    try:
        with open_regular(file) as stream:
            if file.stat().st_size > LARGEST:
                raise UserError(f"{where}: has 2 GB or more, which no ONNX file can hold; export its weights beside it")
            content = stream.read()
    except FileNotFoundError:
        raise UserError(f"{where}: does not exist; give the path of an .onnx file") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); give an .onnx file") from None
    try:
        model = ModelProto.FromString(content)
    except Exception:  # protobuf's
        raise UserError(f"{where}: is no ONNX file; give one that a framework has exported") from None
    return model


def _type(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower()
