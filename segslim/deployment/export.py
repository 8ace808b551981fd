"""Exports a network for deployment, and compares what it wrote with the network itself."""

import dataclasses
import importlib.metadata
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.version_converter

from segslim.deployment.conversion import INPUT_NAME, OPSET, convert, deployed_network, save_inference_model
from segslim.deployment.cost import onnx_cost
from segslim.deployment.deployment import (
    ALL_FILES,
    COST_FILE,
    GIVEN_FILE,
    ONNX_FILE,
    PADDLE_FILES,
    PADDLE_INT8,
    PHOTO_FILE,
    QUANTIZATION_FILE,
    REPORT_FILE,
    Deployment,
    ExportReport,
    Precision,
    one_line,
    write_record,
)
from segslim.deployment.engines import Candidate, open_and_compare
from segslim.deployment.formats import write_formats
from segslim.deployment.photo import write_photo
from segslim.errors import UserError
from segslim.exported import ExportedNetwork, with_opset
from segslim.onnx_graph import halve_weights, logits_of, simplify
from segslim.onnx_tools import session_of
from segslim.paddle_compat import evaluation_mode, import_paddle
from segslim.quantization.qat import can_save_paddle_int8, save_paddle_int8
from segslim.quantization.qdq import quantize
from segslim.quantization.spec import QuantizationSpec

logger = logging.getLogger(__name__)

LEAST_EQUAL_PIXELS = 0.999
# (images, height, width) at which an export of dynamic size is checked: one is no multiple of 32
DYNAMIC_CHECKS = ((1, 128, 160), (2, 100, 140))
RANDOM_SEED = 0
# of the fake-quantize layers that Paddle 2.6 takes the scales of its own int8 format from, where none were trained
FAKE_QUANTIZE = {
    "weight_quantize_type": "channel_wise_abs_max",
    "activation_quantize_type": "moving_average_abs_max",
    "weight_bits": 8,
    "activation_bits": 8,
    "moving_rate": 0.9,
    "quantizable_layer_type": ["Conv2D", "Conv2DTranspose", "Linear"],
}


@dataclass(frozen=True)
class Difference:
    """How far an ONNX file is from its network, at worst over some images.

    `relative` is the largest difference of two logits divided by the largest logit; `equal_pixels` the share of pixels
    that get the same class.
    """

    relative: float
    equal_pixels: float


def export(
    network: Any,
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    max_value: float | None = None,
    output: str = "argmax",
    transforms: Sequence[dict[str, Any]] = (),
    tolerance: float = 1e-3,
    classes: Sequence[str] | None = None,
    colours: Sequence[Sequence[int]] | None = None,
    quantization: QuantizationSpec | None = None,
    compute: Sequence[str] = (),
    cost_size: tuple[int, int] | None = None,
    formats: Sequence[str] = ("paddle", "onnx"),
    fp16: bool = False,
    opset: int = OPSET,
    photo: Literal["rgb", "bgr"] | None = None,
) -> Deployment:
    """Writes the Deployment of `network` into `folder`, and compares it with the network on random images.

    Args:
        network: a paddle.nn.Layer whose first output is logits N,C,H,W; left as it was, except that Paddle 2.6 puts
            fake-quantize layers into it where `quantization` is given. Or an ExportedNetwork: of that no Paddle model
            is written, and beside model.onnx the graph as it was given.
        folder: made where it does not exist.
        size: (width, height) with one image a batch; None leaves batch and size dynamic.
        channels: of an image.
        max_value: what an image's files hold for white, where that is not the largest number of their type.
        output: "argmax" (class ids N,H,W int32), "softmax" or "logits" (N,C,H,W float32).
        transforms: what an image goes through before the network, as `{type: Normalize, mean: [...], std: [...]}`.
        tolerance: the largest difference of two logits that is allowed, as a share of the largest logit.
        classes: the name of each class.
        colours: [red, green, blue] of each class.
        quantization: makes model.onnx int8, the only model that is deployed then; the comparison is of the float one.
        compute: float types that engines may try; those of `quantization` where it is given.
        cost_size: (width, height) at which FLOPs are counted; `size` where it is None.
        formats: what is written beside model.onnx: "paddle", and those of segslim.deployment.formats.
        fp16: float weights are stored in 16 bits, in all formats but Paddle's; engines compute as without it.
        opset: of model.onnx, 13 or more.
        photo: writes photo.onnx, too, which takes photos whose channels are in this order.

    Raises UserError if the network cannot be converted, if its logits and those of the file differ by more than
    `tolerance`, or in the class of more than 0.001 of the pixels, if a format's output differs from that of the ONNX
    file by more than engines may (see segslim.deployment.engines), and if `quantization` makes nothing int8.
    """
    started = time.perf_counter()
    shape = input_shape(size, channels)
    file = folder / ONNX_FILE
    folder.mkdir(parents=True, exist_ok=True)
    for name in ALL_FILES:  # nothing of an earlier export may pass for one of this
        (folder / name).unlink(missing_ok=True)
    _write_models(network, folder, shape, output)
    seconds = time.perf_counter() - started
    shapes = _any_sizes(channels) if size is None else ((1, channels, size[1], size[0]),)
    difference = _check(network, file, output, shapes, tolerance)
    exported = isinstance(network, ExportedNetwork)
    packages = ("onnx", "onnxruntime") if exported else ("paddle2onnx", "paddleseg", "onnx", "onnxruntime")
    versions = {name: importlib.metadata.version(name) for name in packages}
    report = ExportReport(
        network=type(network).__name__,
        input_name=onnx.load(file).graph.input[0].name if exported else INPUT_NAME,
        input_shape=shape,
        output=output,
        output_dtype="int32" if output == "argmax" else "float32",
        difference=difference.relative,
        equal_pixels=difference.equal_pixels,
        checked_shapes=shapes,
        seconds=seconds,
        versions=versions if exported else {"paddle": import_paddle().__version__, **versions},
    )
    write_record(folder, REPORT_FILE, report)
    counted_at = cost_size or size
    precision = Precision("float32", tuple(compute))  # type: ignore[arg-type]
    cost = onnx_cost(file, counted_at) if counted_at else None  # of the float file: int8 multiplies as often
    if quantization is not None:
        _make_int8(network, folder, quantization, output, shape)
        precision = Precision("int8", tuple(quantization.compute), quantization.target)  # type: ignore[arg-type]
    written = write_formats(file, formats, half=fp16, int8=quantization is not None)
    deployed = Deployment(folder, input_shape=shape, output=output, precision=precision)  # type: ignore[arg-type]
    if quantization is None:  # what int8 kernels do is compared on a photo, by `select`
        _compare_formats(deployed, written, shapes, exact=not fp16)
    _set_opset_and_halve(file, opset, fp16)
    if fp16 and quantization is None:
        _log_halved(network, file, output, shapes)
    if photo is not None:
        write_photo(file, folder / PHOTO_FILE, transforms, channels, photo)
    _write_metadata(folder, output, transforms, classes, colours, photo)
    if "paddle" not in formats:
        for name in PADDLE_FILES:
            (folder / name).unlink(missing_ok=True)
    if cost is not None:
        write_record(folder, COST_FILE, dataclasses.replace(cost, size_bytes=file.stat().st_size))
    # the last file to be written: a folder where anything failed is no Deployment
    return Deployment.write(
        folder,
        input_shape=shape,
        output=output,  # type: ignore[arg-type]  # save_inference_model refused others
        max_value=max_value,
        transforms=transforms,
        classes=classes,
        colours=colours,
        precision=precision,
    )


def _compare_formats(
    deployed: Deployment, formats: Sequence[str], shapes: Sequence[tuple[int, ...]], exact: bool
) -> None:
    """Raises UserError for a format whose engine gives another output than ONNX Runtime does of the ONNX file."""
    session = session_of(deployed.onnx_file, threads=0)
    name = session.get_inputs()[0].name
    for shape in shapes if formats else ():
        feed = {name: np.random.default_rng(RANDOM_SEED).standard_normal(shape, dtype=np.float32)}
        for engine in formats:
            choice, _ = open_and_compare(deployed, Candidate(engine), 1, feed, session.run(None, feed)[0], exact)
            if choice.excluded is not None:
                raise UserError(
                    f"export.formats: {engine} gives another output than the ONNX file ({choice.excluded}): leave"
                    f" {engine} out"
                )
            logger.info("%s: %s %s", engine, choice.measure, choice.agreement)


def _write_metadata(
    folder: Path,
    output: str,
    transforms: Sequence[dict[str, Any]],
    classes: Sequence[str] | None,
    colours: Sequence[Sequence[int]] | None,
    photo: str | None,
) -> None:
    """Into the ONNX files what deploy.yaml says, as JSON by key: a file may go its way alone."""
    normalize = next((node for node in transforms if node.get("type") == "Normalize"), None)
    said = {
        "output": output,
        "transforms": [dict(node) for node in transforms],
        "mean": normalize and normalize.get("mean", [0.5]),
        "std": normalize and normalize.get("std", [0.5]),
        "classes": classes and list(classes),
        "colours": colours and [list(colour) for colour in colours],
    }
    inputs = {ONNX_FILE: "N,C,H,W float32, rgb, transformed", PHOTO_FILE: f"H,W,C uint8, 0 to 255, {photo}"}
    for name, taken in inputs.items():
        if (folder / name).is_file():
            model = onnx.load(folder / name)
            held = {key: value for key, value in {"input": taken, **said}.items() if value is not None}
            texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in held.items()}
            kept = {one.key: one.value for one in model.metadata_props}
            onnx.helper.set_model_props(model, {**kept, **texts})
            onnx.save(model, folder / name)


def _set_opset_and_halve(file: Path, opset: int, fp16: bool) -> None:
    """A file that has a later opset already, as one that others exported, keeps it."""
    model = onnx.load(file)
    raises = opset > max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if raises:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except Exception as error:  # the converter's are of C++
            raise UserError(f"export.opset={opset}: onnx does not convert this network ({one_line(error)})") from None
        model.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(list(model.opset_import)))
    if fp16:
        halve_weights(model)
    if raises or fp16:
        onnx.save(model, file)


def _log_halved(network: Any, file: Path, output: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """How far the file with float16 weights is from the network. Raises UserError where it gives no numbers."""
    random = np.random.default_rng(RANDOM_SEED)
    with _logits_of(network) as logits:
        difference = compare(
            file, output, logits, [random.standard_normal(shape, dtype=np.float32) for shape in shapes]
        )
    logger.info(
        "float16 weights: %.1e of the largest logit, %.2f%% equal pixels",
        difference.relative,
        100 * difference.equal_pixels,
    )


def _write_models(network: Any, folder: Path, shape: Sequence[int | None], output: str) -> None:
    """model.onnx, float, and what stands beside it: Paddle's inference model, or the graph as it was given."""
    if isinstance(network, ExportedNetwork):
        onnx.save(network.graph(shape, output), folder / ONNX_FILE)
        onnx.save(network.model, folder / GIVEN_FILE)
        return
    model_file, params_file = save_inference_model(network, folder, shape, output)
    _convert_and_simplify(model_file, params_file, folder / ONNX_FILE, type(network).__name__, output)


def input_shape(size: tuple[int, int] | None, channels: int = 3) -> tuple[int | None, ...]:
    """N,C,H,W that a network exported for `size` (width, height) takes; None stands for what is dynamic."""
    return (None, channels, None, None) if size is None else (1, channels, size[1], size[0])


def _any_sizes(channels: int) -> tuple[tuple[int, ...], ...]:
    return tuple((images, channels, height, width) for images, height, width in DYNAMIC_CHECKS)


def export_onnx(network: Any, file: Path, input_shape: Sequence[int | None], output: str = "logits") -> None:
    """Writes `network` as one ONNX file, which is not compared with it: `export` does that.

    Parameters are initializers under their Paddle names, and batch norm is not folded into convolutions.

    Args:
        network: a paddle.nn.Layer whose first output is logits; left as it was.
        file: with the input "x" N,C,H,W float32, and one output named as `output` says.
        input_shape: N,C,H,W, None for a dynamic size.
        output: "logits" or "softmax" (N,C,H,W float32), or "argmax" (class ids N,H,W int32).

    Raises UserError if the network cannot be converted.
    """
    if isinstance(network, ExportedNetwork):
        onnx.save(network.graph(input_shape, output), file)
        return
    with tempfile.TemporaryDirectory() as folder:
        model_file, params_file = save_inference_model(network, Path(folder), input_shape, output)
        _convert_and_simplify(model_file, params_file, file, type(network).__name__, output)


def check_any_size(network: Any, file: Path, output: str, channels: int = 3) -> None:
    """Writes `network` to `file` for every size. Raises UserError where that, whatever the weights are, cannot be."""
    export_onnx(network, file, input_shape(None, channels), output)
    images = [np.zeros(shape, np.float32) for shape in _any_sizes(channels)]
    try:
        with _logits_of(network) as logits:
            compare(file, output, logits, images)
    except UserError:
        raise
    except Exception as error:  # Paddle's and ONNX Runtime's have no base but this
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"export.size=dynamic: {type(network).__name__} does not run at every size ({reason});"
            " give export.size=[width,height]"
        ) from error


def compare(
    file: Path, output: str, logits_of_network: Callable[[np.ndarray], np.ndarray], images: Iterable[np.ndarray]
) -> Difference:
    """Compares an ONNX file in ONNX Runtime with the network that it came from, by their logits.

    Args:
        file: the ONNX file.
        output: what it gives: "argmax", "softmax" or "logits".
        logits_of_network: the network's logits N,C,H,W of images N,3,H,W float32.
        images: what both are run on.

    Raises UserError if the file does not load, shapes differ, numbers are not finite, or its softmax or argmax is not
    that of its logits.
    """
    session = _session_with_logits(file)
    relative, equal_pixels = 0.0, 1.0
    for image in images:
        expected = logits_of_network(image)
        outputs = session.run(None, {session.get_inputs()[0].name: image})
        deployed, logits = outputs[0], outputs[-1]
        if logits.shape != expected.shape:
            raise UserError(f"{file}: the exported logits are {logits.shape}, and the network's are {expected.shape}")
        if not np.isfinite(logits).all() or not np.isfinite(expected).all():
            raise UserError(f"{file}: the logits of a random image are not finite; look at the weights")
        if not _is_output_of(logits, output, deployed):
            raise UserError(
                f"{file}: the exported {output} is not that of the exported logits; choose export.output=logits"
            )
        relative = max(relative, float(np.abs(logits - expected).max() / (np.abs(expected).max() or 1.0)))
        equal_pixels = min(equal_pixels, float((logits.argmax(1) == expected.argmax(1)).mean()))
    return Difference(relative, equal_pixels)


def _session_with_logits(file: Path) -> Any:
    """A session with the file's own output and, where that is made from the logits, these as a second one."""
    model = onnx.load(file)
    if model.graph.output[0].name != "logits":
        model.graph.output.append(onnx.ValueInfoProto(name=logits_of(model)))
    try:
        return session_of(model, threads=0)
    except Exception as error:  # onnxruntime has a kind of its own for everything, with no base but this
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{file}: ONNX Runtime does not load what paddle2onnx wrote: {reason}") from error


def _is_output_of(logits: np.ndarray, output: str, deployed: np.ndarray) -> bool:
    if output == "argmax":
        return deployed.dtype == np.int32 and np.array_equal(deployed, logits.argmax(1))
    if output == "softmax":
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return np.allclose(deployed, exponentials / exponentials.sum(1, keepdims=True), atol=1e-5)
    return True


def _check(network: Any, file: Path, output: str, shapes: Sequence[tuple[int, ...]], tolerance: float) -> Difference:
    random = np.random.default_rng(RANDOM_SEED)
    images = [random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    with _logits_of(network) as logits:
        difference = compare(file, output, logits, images)
    name = type(network).__name__
    logger.info("%s: the file and the network differ by at most %.1e of the largest logit", name, difference.relative)
    if difference.relative > tolerance or difference.equal_pixels < LEAST_EQUAL_PIXELS:
        raise UserError(
            f"{name}: the exported ONNX differs from the network by {difference.relative:.1e} of the largest logit "
            f"(allowed {tolerance:.1e}), and in the class of {1 - difference.equal_pixels:.2%} of the pixels (allowed "
            f"{1 - LEAST_EQUAL_PIXELS:.2%}); export with another size, or raise export.tolerance if that is fine"
        )
    return difference


@contextmanager
def _logits_of(network: Any) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Within it, what gives the network's logits of images."""
    if isinstance(network, ExportedNetwork):
        yield network.logits
        return
    paddle = import_paddle()
    with evaluation_mode(network), paddle.no_grad():
        yield lambda image: network(paddle.to_tensor(image))[0].numpy()


def _convert_and_simplify(model_file: Path, params_file: Path, file: Path, network_name: str, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw_file = Path(folder, "raw.onnx")
        convert(model_file, params_file, raw_file, network_name)
        model = onnx.load(raw_file)
        simplify(model, output)
        onnx.save(model, file)


def _make_int8(
    network: Any, folder: Path, quantization: QuantizationSpec, output: str, shape: Sequence[int | None]
) -> None:
    """Makes model.onnx int8, and writes what became int8 and what did not, with the reason."""
    if isinstance(network, ExportedNetwork):
        given = with_opset(onnx.load(folder / GIVEN_FILE))
        quantize(given, quantization)
        onnx.save(given, folder / GIVEN_FILE)
    model, float_graph = onnx.load(folder / ONNX_FILE), onnx.load(folder / ONNX_FILE)
    quantized = quantize(model, quantization)  # raises where nothing becomes int8
    onnx.save(model, folder / ONNX_FILE)
    write_record(folder, QUANTIZATION_FILE, quantized)
    for left in quantized.floats:
        logger.info("%s (%s) stays float: %s", left.tensor, left.op_type, left.reason)
    if isinstance(network, ExportedNetwork) or not can_save_paddle_int8():
        return
    paddle_folder = folder / PADDLE_INT8
    shutil.rmtree(paddle_folder, ignore_errors=True)

    def deployed(fake: Any) -> Any:
        return deployed_network(fake, output)

    try:
        save_paddle_int8(network, quantization, float_graph, deployed, paddle_folder, shape, FAKE_QUANTIZE)
    except Exception as error:  # whatever Paddle's passes raise: only one engine reads this format
        shutil.rmtree(paddle_folder, ignore_errors=True)
        logger.warning("no int8 model for TensorRT in Paddle Inference: %s", one_line(error))
