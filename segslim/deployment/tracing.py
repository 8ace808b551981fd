"""From a dygraph network to a saved Paddle inference model, with the network left as it was."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from segslim.deployment.convertible import REPLACEMENTS
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle

paddle = import_paddle()
logger = logging.getLogger(__name__)

OUTPUTS = ("logits", "softmax", "argmax")
INPUT_NAME = "x"  # as PaddleSeg names it


class DeployedNetwork(paddle.nn.Layer):  # type: ignore[name-defined]
    """The first output of a segmentation network: logits or softmax N,C,H,W float32, or class ids N,H,W int32."""

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

    The translation takes three quarters of an export's time, and where all sizes are numbers, hardly any network needs
    it. One whose control flow depends on a tensor raises a TypeError.
    """

    @paddle.jit.not_to_static
    def forward(self, x: Any) -> Any:
        return super().forward(x)


def save_inference_model(
    network: Any, folder: Path, input_shape: Sequence[int | None], output: str
) -> tuple[Path, Path]:
    """Writes `folder`/model.json (model.pdmodel by Paddle 2.6) and model.pdiparams; returns both paths.

    `input_shape` is N,C,H,W with None for what is to stay dynamic; `output` is one of OUTPUTS.
    """
    if output not in OUTPUTS:
        raise UserError(f"export.output is {output!r}, and can be one of {', '.join(OUTPUTS)}")
    candidates = [folder / "model.json", folder / "model.pdmodel"]
    for file in candidates:
        file.unlink(missing_ok=True)
    spec = [paddle.static.InputSpec(list(input_shape), "float32", INPUT_NAME)]
    with ExitStack() as stack:
        for context in (evaluation_mode(network), _forward_left_unpatched(network), *(r() for r in REPLACEMENTS)):
            stack.enter_context(context)
        if None in input_shape:
            _save(DeployedNetwork(network, output), folder, spec)
        else:
            try:
                with _truth_of_tensors_refused():
                    _save(FixedSizeNetwork(network, output), folder, spec)
            except TypeError as error:
                logger.info("%s is traced by translation: %s", type(network).__name__, str(error).strip()[-200:])
                _save(DeployedNetwork(network, output), folder, spec)
    model_file = next(file for file in candidates if file.is_file())
    return model_file, folder / "model.pdiparams"


def _save(deployed: DeployedNetwork, folder: Path, spec: list[Any]) -> None:
    deployed.eval()
    static = paddle.jit.to_static(deployed, input_spec=spec, full_graph=True)
    paddle.jit.save(static, str(folder / "model"))


@contextmanager
def _truth_of_tensors_refused() -> Iterator[None]:
    """Within it, `if tensor:` raises a TypeError while Paddle traces.

    Paddle 2.6.2 takes every tensor for true there. It can go with Paddle 2.6: Paddle 3 raises by itself.
    """

    def refuse(variable: Any) -> bool:
        if variable.persistable:  # a parameter: Paddle's own `if weight:` asks whether there is one
            return True
        raise TypeError(f"{variable.name} is true or false only when the network runs")

    variable = paddle.static.Variable
    if "__bool__" in vars(variable):
        yield
        return
    variable.__bool__ = refuse
    try:
        yield
    finally:
        del variable.__bool__


@contextmanager
def evaluation_mode(network: Any) -> Iterator[None]:
    """Every layer in evaluation mode, and afterwards each in the mode it had."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextmanager
def _forward_left_unpatched(network: Any) -> Iterator[None]:
    """`paddle.jit.to_static` sets a translated `forward` on every layer that it meets, and leaves it there."""
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
