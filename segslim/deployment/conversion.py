"""From a saved Paddle inference model to an ONNX file, in a child process: the converter's abort must not be ours."""

import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from segslim.errors import UserError

OPSET = 13  # the first with QuantizeLinear per channel; every engine here reads it


def convert(model_file: Path, params_file: Path, onnx_file: Path, network_name: str) -> None:
    """Writes `onnx_file` as paddle2onnx converts it.

    Raises UserError with the converter's last words where it fails or dies.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("converter_child.py"))]
    with tempfile.TemporaryDirectory() as folder:
        readable = _without_unread_doubles(model_file, Path(folder))
        arguments = [readable, params_file, onnx_file, OPSET, _package_folder("paddle2onnx"), _package_folder("paddle")]
        child = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    if child.returncode != 0 or not onnx_file.is_file():
        raise UserError(
            f"{network_name} cannot be converted to ONNX: paddle2onnx {_ending(child.returncode)}: "
            f"{_last_words(child.stdout + child.stderr)}; export it with a fixed size, or choose another network"
        )


def _without_unread_doubles(model_file: Path, folder: Path) -> Path:
    """A copy of a model.json whose attributes of type double are floats.

    paddle2onnx 2.1.0 does not read double attributes. For epsilon of group_norm, negative_slope of leaky_relu, or beta
    of softplus it takes what is in memory (Paddle2ONNX issue 1646), and at the scale of an interpolation it ends.
    `value`, of full, it reads. It can go when a network of these four layers converts without it.
    """
    if model_file.suffix != ".json":
        return model_file
    copy = folder / model_file.name
    program = model_file.read_text(encoding="utf-8")
    double_attribute = r'"0\.a_f64"(?!,"D":[^{}]*\},"N":"value")'
    copy.write_text(re.sub(double_attribute, '"0.a_f32"', program), encoding="utf-8")
    return copy


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {name} is not installed, and the export to ONNX needs it")
    return Path(next(iter(spec.submodule_search_locations)))


def _ending(returncode: int) -> str:
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"


def _last_words(output: str) -> str:
    """The last line that names an operator, else the last error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    operators = [line for line in lines if "[OP:" in line or "operators not supported yet" in line]
    errors = [line for line in lines if "error" in line.lower()]
    return (operators or errors or lines or ["it said nothing"])[-1]
