"""Converts one Paddle inference model to ONNX, as a script in a process of its own, because the converter may abort.

Only the converter's C++ binding is loaded: with Paddle's Python package the same conversion takes ten times as long.
Arguments: model file, parameters file, ONNX file to write, opset, folder of paddle2onnx, folder of paddle.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_binding(paddle2onnx_folder: Path, paddle_folder: Path) -> ModuleType:
    """The converter's C++ binding. paddle2onnx 2.x links against libpaddle, which has to be in the process before."""
    (file,) = paddle2onnx_folder.glob("paddle2onnx_cpp2py_export*")
    spec = importlib.util.spec_from_file_location("paddle2onnx_cpp2py_export", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no extension module")
    try:
        return _execute(spec)
    except ImportError:
        sys.path.insert(0, str(paddle_folder / "base"))
        importlib.import_module("libpaddle")
        return _execute(spec)


def _execute(spec: importlib.machinery.ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def main(model: str, params: str, onnx: str, opset: str, paddle2onnx_folder: str, paddle_folder: str) -> None:
    binding = load_binding(Path(paddle2onnx_folder), Path(paddle_folder))
    upgrade_opset, verbose, check, experimental, optimize, float16 = True, False, False, True, True, False
    switches = (upgrade_opset, verbose, check, experimental, optimize)
    converted = binding.export(model, params, int(opset), *switches, {}, "onnxruntime", "", "", float16)
    if not converted:  # paddle2onnx 1.3.1 says what is wrong, and returns nothing
        sys.exit(1)
    Path(onnx).write_bytes(converted)


if __name__ == "__main__":
    main(*sys.argv[1:])
