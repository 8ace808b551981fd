"""Formats of a Deployment beside ONNX and Paddle's, each made of the ONNX file by its own converter.

openvino   OpenVINO's model, openvino.xml and openvino.bin: float, or int8 as the ONNX file is
mnn        model.mnn: float, or its convolutions int8, but for depthwise ones, by the scales of the ONNX file
ncnn       model.ncnn.param and model.ncnn.bin: float, of one size, and logits alone: class ids are made of them by the
           engine

`export` compares what they give with the ONNX file's output.
"""

import importlib.util
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segslim.deployment.deployment import MNN_FILE, NCNN_FILES, OPENVINO_FILES
from segslim.errors import UserError
from segslim.onnx_graph import write_logits_model

if TYPE_CHECKING:
    from segslim.quantization.qdq import IntegerConvolution, Scale

logger = logging.getLogger(__name__)

# The packages that make a format and run it.
PACKAGES = {"openvino": ("openvino",), "mnn": ("MNN",), "ncnn": ("ncnn", "pnnx")}
# pnnx 20261020 leaves QuantizeLinear and DequantizeLinear as operators that ncnn does not have, and ncnn2int8, which
# makes a file of ncnn int8, is in none of its packages.
FLOAT_ONLY = ("ncnn",)
# Not `mnnconvert`: in MNN 3.6.1 that installs a package by pip, and reports its use over the network.
MNN_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def check_formats(formats: Iterable[str], any_size: bool) -> None:
    """Raises UserError for a format whose packages are missing, or that takes one size alone."""
    for name in formats:
        missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
        if missing:
            needs = f"export.formats: {name} needs {' and '.join(missing)}"
            raise UserError(f"{needs}: type `uv run --group {name} ...`, or leave {name} out")
    if any_size and "ncnn" in formats:
        raise UserError("export.formats: ncnn takes images of one size: give export.size=[width,height]")


def write_formats(onnx_file: Path, formats: Sequence[str], *, half: bool, int8: bool) -> list[str]:
    """Writes, beside `onnx_file`, those of the formats that are made of it; `half` halves their weights' bytes.

    Returns what was written; a format that cannot be int8 is left out with a warning. Raises UserError with the
    converter's last words where it fails.
    """
    written = []
    for name in [name for name in PACKAGES if name in formats]:
        if int8 and name in FLOAT_ONLY:
            logger.warning("%s: its converter reads no QuantizeLinear: the int8 deployment has no file for it", name)
            continue
        CONVERTERS[name](onnx_file, half)
        written.append(name)
    return written


def _write_openvino(onnx_file: Path, half: bool) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(onnx_file), onnx_file.with_name(OPENVINO_FILES[0]), half)


def _write_mnn(onnx_file: Path, half: bool) -> None:
    import onnx

    from segslim.quantization.qdq import as_float

    made, source = onnx_file.absolute().with_name(MNN_FILE), onnx_file.absolute()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--fp16"] if half else []
        model = onnx.load(onnx_file)
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            # its converter (3.6.1) takes a tensor with one scale for one of another shape: it is told them in a file
            source, scales = Path(folder, onnx_file.name), Path(folder, "scales.json")
            model, layers = as_float(model)
            # of MNN 3.6.1's int8 kernels for x86, those for groups of channels lose the network behind one another
            layers = [layer for layer in layers if layer.groups == 1]
            onnx.save(model, source)
            scales.write_text(json.dumps(_mnn_compression(layers)), encoding="utf-8")
            options += ["--compressionParamsFile", str(scales)]
        options = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(made), *options]
        _run("mnn", [sys.executable, "-I", "-c", MNN_CONVERT, *options], Path(folder), [made])


def _mnn_compression(layers: "Iterable[IntegerConvolution]") -> dict[str, Any]:
    """What `mnnconvert --compressionParamsFile` reads (MNN's MNN_compression.proto, as JSON)."""

    def described(name: str, scales: list[float], zero: int = 0, least: int = -127) -> list[dict[str, Any]]:
        # without the bits, and the bounds, it keeps weights in more bytes
        return [{"name": name, "scales": scales, "zeroPoint": zero, "bits": 8, "clampMin": least, "clampMax": 127}]

    def activation(name: str, scale: "Scale") -> list[dict[str, Any]]:
        zero = int(scale.zero_point) - (128 if scale.zero_point.dtype == "uint8" else 0)  # MNN's are int8
        return described(name, [scale.scale], zero, least=-128)

    quantized = [
        {
            "opName": layer.name,
            "input": activation(f"{layer.name}.input", layer.input),
            "output": activation(layer.name, layer.output),
            "weight": described(layer.name, layer.weight.tolist()),
        }
        for layer in layers
    ]
    return {"version": "0.0.0", "algo": [{"type": "QUANTIZE", "quantParams": {"layer": quantized}}]}


def _write_ncnn(onnx_file: Path, half: bool) -> None:
    package = importlib.util.find_spec("pnnx")  # which imports torch, and its program does not
    assert package is not None and package.origin is not None
    program = Path(package.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")
    with tempfile.TemporaryDirectory() as folder:
        logits = Path(folder, onnx_file.name)
        write_logits_model(onnx_file, logits)
        made = [Path(folder, name) for name in NCNN_FILES]
        _run("ncnn", [str(program), logits.name, f"fp16={int(half)}"], Path(folder), made)
        for file in made:
            onnx_file.with_name(file.name).write_bytes(file.read_bytes())


CONVERTERS: dict[str, Callable[[Path, bool], None]] = {
    "openvino": _write_openvino,
    "mnn": _write_mnn,
    "ncnn": _write_ncnn,
}


def _run(name: str, command: Sequence[str], folder: Path, made: Sequence[Path]) -> None:
    child = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if child.returncode == 0 and all(file.is_file() for file in made):
        return
    said = [line.strip() for line in (child.stdout + child.stderr).splitlines() if line.strip()]
    reason = said[-1] if said else f"it ended with code {child.returncode}"
    raise UserError(f"export.formats: {name} does not convert this network ({reason}): leave {name} out")
