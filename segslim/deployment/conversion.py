"""From a dygraph network to Paddle's inference model, with the network left as it was; and from that model to ONNX."""

import functools
import importlib.util
import logging
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from segslim.deployment.convertible import convertible_operators
from segslim.deployment.deployment import PADDLE_MODELS, PADDLE_PARAMS
from segslim.errors import UserError
from segslim.known_sizes import known_sizes
from segslim.paddle_compat import evaluation_mode, import_paddle, patched, reason_of, without_diagnostics

logger = logging.getLogger(__name__)

OUTPUTS = ("logits", "softmax", "argmax")
INPUT_NAME = "x"  # as PaddleSeg names it
OPSET = 13  # the first with QuantizeLinear per channel; every engine here reads it


@functools.cache
def _layer_classes() -> tuple[Any, Any]:
    """DeployedNetwork and FixedSizeNetwork: classes of Paddle's, which is imported when the first is made."""
    paddle = import_paddle()

    class DeployedNetwork(paddle.nn.Layer):  # type: ignore[name-defined]
        def __init__(self, network: Any, output: str):
            super().__init__()
            self.network = network
            self.output = output

        def forward(self, x: Any) -> Any:
            logits = self.network(x)[0]
            if self.output == "softmax":
                return paddle.nn.functional.softmax(logits, axis=1)
            if self.output == "argmax":
                return paddle.argmax(logits, axis=1, dtype="int32")
            return logits

    class FixedSizeNetwork(DeployedNetwork):
        """Traced by running it once, without translating the network's Python.

        The translation takes three quarters of an export's time, and where all sizes are numbers, hardly any network
        needs it. One whose control flow depends on a tensor raises a TypeError.
        """

        @paddle.jit.not_to_static
        def forward(self, x: Any) -> Any:
            return super().forward(x)

    return DeployedNetwork, FixedSizeNetwork


def deployed_network(network: Any, output: str) -> Any:
    """A layer that gives the first output of `network`: logits or softmax N,C,H,W float32, or class ids N,H,W int32."""
    return _layer_classes()[0](network, output)


def save_inference_model(
    network: Any, folder: Path, input_shape: Sequence[int | None], output: str
) -> tuple[Path, Path]:
    """Writes Paddle's inference model (model.json, or model.pdmodel by Paddle 2.6) and its parameters.

    Args:
        network: a paddle.nn.Layer whose first output is logits; left as it was.
        folder: where both are written; a model of another Paddle in it is removed.
        input_shape: N,C,H,W with None for what is to stay dynamic.
        output: one of OUTPUTS.

    Returns the paths of both files. Raises UserError for an unknown output.
    """
    if output not in OUTPUTS:
        raise UserError(f"export.output is {output!r}, and can be one of {', '.join(OUTPUTS)}")
    paddle = import_paddle()
    candidates = [folder / name for name in PADDLE_MODELS]
    for file in candidates:
        file.unlink(missing_ok=True)
    any_size, fixed_size = _layer_classes()

    def save(layer: Any) -> None:
        layer.eval()
        spec = [paddle.static.InputSpec(list(input_shape), "float32", INPUT_NAME)]
        static = paddle.jit.to_static(layer, input_spec=spec, full_graph=True)
        paddle.jit.save(static, str(folder / "model"))

    def save_with_known_sizes(layer: Any) -> None:
        value_type = paddle.pir.Value if paddle.framework.use_pir_api() else paddle.static.Variable
        with known_sizes(paddle, network, value_type):
            save(layer)

    with (
        evaluation_mode(network),
        without_diagnostics(),
        _forward_left_unpatched(network),
        convertible_operators(),
    ):
        if None in input_shape:
            _first_that_works(network, {"at any size": lambda: save(any_size(network, output))})
        else:
            _first_that_works(
                network,
                {
                    "as it is": lambda: save(fixed_size(network, output)),
                    "with sizes as numbers": lambda: save_with_known_sizes(fixed_size(network, output)),
                    "by translation": lambda: save(any_size(network, output)),
                },
            )
    return next(file for file in candidates if file.is_file()), folder / PADDLE_PARAMS


def _first_that_works(network: Any, ways: Mapping[str, Callable[[], None]]) -> None:
    """Traces the network in one of these ways. Raises UserError, with what the first one failed at."""
    failures: dict[str, str] = {}
    branches = True
    for way, trace in ways.items():
        if way == "by translation" and not branches:
            break  # it is for branches alone, and Paddle 3.3.1 ends the process at some other code (GSCNN)
        try:
            with _branching_on_tensors_refused() if way == "as it is" else nullcontext():
                trace()
            logger.info("%s is traced %s", type(network).__name__, way)
            return
        except Exception as error:  # the network's own code runs: anything may be raised
            logger.info("%s cannot be traced %s: %s", type(network).__name__, way, reason_of(error))
            failures[way] = reason_of(error)
            branches = branches and isinstance(error, TypeError)
    reason = next(iter(failures.values()))
    raise UserError(f"{type(network).__name__} cannot be exported: {reason}; choose another network")


@contextmanager
def _branching_on_tensors_refused() -> Iterator[None]:
    """Within it, `if tensor:` raises a TypeError while Paddle traces.

    Paddle 2.6.2 takes every tensor for true there. It can go with Paddle 2.6: Paddle 3 raises by itself.
    """

    def refuse(variable: Any) -> bool:
        if variable.persistable:  # a parameter: Paddle's own `if weight:` asks whether there is one
            return True
        raise TypeError(f"{variable.name} is true or false only when the network runs")

    variable = import_paddle().static.Variable
    if "__bool__" in vars(variable):
        yield
        return
    with patched(variable, "__bool__", refuse):
        yield


@contextmanager
def _forward_left_unpatched(network: Any) -> Iterator[None]:
    """Undoes that `paddle.jit.to_static` leaves a translated `forward` on every layer (Paddle 2.6.2 and 3.3.1).

    It can go when `vars(layer)` of no layer has a `forward` after an export of dynamic size.
    """
    before = [
        (layer, vars(layer).get("forward"), dict(layer._original_funcs))
        for layer in network.sublayers(include_self=True)
    ]
    try:
        yield
    finally:
        for layer, forward, original_functions in before:
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward
            layer._original_funcs = original_functions


def convert(model_file: Path, params_file: Path, onnx_file: Path, network_name: str) -> None:
    """Writes `onnx_file` as paddle2onnx converts Paddle's model, in a child process: its abort must not be ours.

    Args:
        model_file: model.json or model.pdmodel.
        params_file: model.pdiparams.
        onnx_file: the file to write.
        network_name: names the network in errors.

    Raises UserError with the converter's last words where it fails or dies.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("converter_child.py"))]
    with tempfile.TemporaryDirectory() as folder:
        readable = _without_unread_doubles(model_file, Path(folder))
        arguments = [readable, params_file, onnx_file, OPSET, _package_folder("paddle2onnx"), _package_folder("paddle")]
        child = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    if child.returncode == 0 and onnx_file.is_file():
        return
    code = child.returncode
    end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    # its last line that names an operator says most, then its last error, then whatever it said last
    lines = [line.strip() for line in (child.stdout + child.stderr).splitlines() if line.strip()]
    operators = [line for line in lines if "[OP:" in line or "operators not supported yet" in line]
    errors = [line for line in lines if "error" in line.lower()]
    reason = (operators or errors or lines or ["it said nothing"])[-1]
    raise UserError(
        f"{network_name} cannot be converted to ONNX: paddle2onnx {end}: {reason}; "
        "choose another network, or, where export.size is dynamic, a fixed size"
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
