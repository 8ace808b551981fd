"""Exports a network for deployment, and checks what it wrote against the network itself."""

import importlib.metadata
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from segslim.deployment.check import Difference, compare
from segslim.deployment.conversion import convert
from segslim.deployment.simplify import simplify
from segslim.deployment.tracing import INPUT_NAME, evaluation_mode, save_inference_model
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from segslim.records import write_record

paddle = import_paddle()
logger = logging.getLogger(__name__)

LEAST_EQUAL_PIXELS = 0.999
# (images, height, width) at which an export of dynamic size is checked: one is no multiple of 32
DYNAMIC_CHECKS = ((1, 128, 160), (2, 100, 140))
RANDOM_SEED = 0


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how far its logits are from the network's (see check.Difference)."""

    network: str
    input_name: str
    input_shape: tuple[int | None, ...]  # N,C,H,W; None where the size is dynamic
    output: str
    output_dtype: str
    difference: float
    equal_pixels: float
    checked_shapes: tuple[tuple[int, ...], ...]
    seconds: float  # without the check
    versions: dict[str, str]


def export(
    network: Any,
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    output: str = "argmax",
    transforms: Sequence[dict[str, Any]] = (),
    tolerance: float = 1e-3,
    classes: Sequence[str] | None = None,
    colours: Sequence[Sequence[int]] | None = None,
) -> ExportReport:
    """Writes the Deployment of `network` into `folder`, and compares it with the network on random images.

    Files: model.json (model.pdmodel by Paddle 2.6) and model.pdiparams for Paddle Inference, deploy.yaml as PaddleSeg's
    deploy/python/infer.py reads it, model.onnx, and export.json with the report that is returned.

    `size` is (width, height) with one image a batch; None leaves batch and size dynamic. `output` is "argmax" (class
    ids N,H,W int32), "softmax" or "logits" (N,C,H,W float32) of the network's first output. `transforms` are what an
    image goes through before the network, as `{type: Normalize, mean: [...], std: [...]}`; `classes` and `colours` are
    the name and the [red, green, blue] of each class, for `segslim.predict`. The network is left as it was.

    Raises UserError if the network cannot be converted, or if its logits and those of model.onnx differ by more than
    `tolerance` of the largest logit, or in the class of more than 0.001 of the pixels.
    """
    name = type(network).__name__
    shape = input_shape(size)
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    model_file, params_file = save_inference_model(network, folder, shape, output)
    _convert_saved(model_file, params_file, folder / "model.onnx", name, output)
    seconds = time.perf_counter() - started
    checks = _checked_shapes(shape)
    difference = _check(network, folder / "model.onnx", output, checks, tolerance)
    output_dtype = "int32" if output == "argmax" else "float32"
    names = {"classes": classes and list(classes), "colours": colours and [list(colour) for colour in colours]}
    _write_deploy_yaml(folder, model_file.name, shape, output, output_dtype, transforms, names)
    report = ExportReport(
        network=name,
        input_name=INPUT_NAME,
        input_shape=shape,
        output=output,
        output_dtype=output_dtype,
        difference=difference.relative,
        equal_pixels=difference.equal_pixels,
        checked_shapes=checks,
        seconds=seconds,
        versions=_versions(),
    )
    write_record(folder, "export.json", report)
    return report


def input_shape(size: tuple[int, int] | None) -> tuple[int | None, ...]:
    """N,C,H,W that a network exported for `size` (width, height) takes; None stands for what is dynamic."""
    return (None, 3, None, None) if size is None else (1, 3, size[1], size[0])


def export_onnx(network: Any, file: Path, input_shape: Sequence[int | None], output: str = "logits") -> None:
    """Writes `network` as the ONNX file `file`: input "x" N,C,H,W float32, one output named as `output` says.

    `output` is "logits" or "softmax" (N,C,H,W float32), or "argmax" (class ids N,H,W int32). None in `input_shape` is a
    dynamic size. Parameters are initializers under their Paddle names, and batch norm is not folded into convolutions.
    The file is not compared with the network: `export` does that. Raises UserError if the network cannot be converted.
    """
    with tempfile.TemporaryDirectory() as folder:
        model_file, params_file = save_inference_model(network, Path(folder), input_shape, output)
        _convert_saved(model_file, params_file, file, type(network).__name__, output)


def check_any_size(network: Any, file: Path, output: str) -> None:
    """Writes `network` to `file` for every size. Raises UserError where that, whatever the weights are, cannot be."""
    export_onnx(network, file, input_shape(None), output)
    images = [np.zeros(shape, np.float32) for shape in DYNAMIC_CHECKS]
    try:
        with evaluation_mode(network), paddle.no_grad():
            compare(file, output, _logits_of(network), images)
    except UserError:
        raise
    except Exception as error:  # Paddle's and ONNX Runtime's have no base but this
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"export.size=dynamic: {type(network).__name__} does not run at every size ({reason});"
            " give export.size=[width,height]"
        ) from error


def _convert_saved(model_file: Path, params_file: Path, file: Path, network_name: str, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw_file = Path(folder, "raw.onnx")
        convert(model_file, params_file, raw_file, network_name)
        model = onnx.load(raw_file)
        simplify(model, output)
        onnx.save(model, file)


def _checked_shapes(shape: tuple[int | None, ...]) -> tuple[tuple[int, ...], ...]:
    if None in shape:
        return tuple((images, 3, height, width) for images, height, width in DYNAMIC_CHECKS)
    return (tuple(number for number in shape if number is not None),)


def _check(network: Any, file: Path, output: str, shapes: Sequence[tuple[int, ...]], tolerance: float) -> Difference:
    random = np.random.default_rng(RANDOM_SEED)
    images = [random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    with evaluation_mode(network), paddle.no_grad():
        difference = compare(file, output, _logits_of(network), images)
    name = type(network).__name__
    logger.info("%s: ONNX differs from the network by %.1e of the largest logit", name, difference.relative)
    if difference.relative > tolerance or difference.equal_pixels < LEAST_EQUAL_PIXELS:
        raise UserError(
            f"{name}: the exported ONNX differs from the network by {difference.relative:.1e} of the largest logit "
            f"(allowed {tolerance:.1e}), and in the class of {1 - difference.equal_pixels:.2%} of the pixels (allowed "
            f"{1 - LEAST_EQUAL_PIXELS:.2%}); export with another size, or raise export.tolerance if that is fine"
        )
    return difference


def _logits_of(network: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: network(paddle.to_tensor(image))[0].numpy()


def _write_deploy_yaml(
    folder: Path,
    model_name: str,
    shape: Sequence[int | None],
    output: str,
    output_dtype: str,
    transforms: Sequence[dict[str, Any]],
    names: dict[str, Any],
) -> None:
    deploy = {
        "model": model_name,
        "params": "model.pdiparams",
        "transforms": [dict(transform) for transform in transforms],
        "input_shape": list(shape),
        "output_op": "none" if output == "logits" else output,
        "output_dtype": output_dtype,
        **{key: value for key, value in names.items() if value is not None},
    }
    text = yaml.safe_dump({"Deploy": deploy}, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    (folder / "deploy.yaml").write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    packages = ("paddle2onnx", "paddleseg", "onnx", "onnxruntime")
    return {"paddle": paddle.__version__, **{package: importlib.metadata.version(package) for package in packages}}
