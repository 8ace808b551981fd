"""Traces a dygraph network into a neutral program, and leaves the network as it was."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from segslim.channels.onnx_reader import read_onnx
from segslim.channels.program import (
    AttributeSize,
    Branching,
    Extent,
    OldIrReader,
    Parameter,
    PirReader,
    Program,
    TensorSize,
)
from segslim.errors import UserError
from segslim.exported import ExportedNetwork
from segslim.known_sizes import TracedAttribute, TracedSize, known_sizes
from segslim.paddle_compat import evaluation_mode, import_paddle, reason_of, with_auxiliary_heads, without_diagnostics

_log = logging.getLogger(__name__)


def trace(network: Any, input_shape: tuple[int, ...]) -> Program:
    """Traces `network` for one float32 input of `input_shape` (N, C, H, W), with its auxiliary heads and without
    dropout.

    What has several outputs in training is traced as it is deployed, too: its first output there need not be the one
    that is deployed (MscaleOCRNet, MaskFormer).

    The network's Python runs as it is, on symbolic tensors, rather than through Paddle's rewriting of its source: that
    is 4 to 6 times faster, and every size is known. Raises UserError when the network branches on a tensor's value,
    when two of its parameters have one name, or when its code fails. An exported graph is read as it is.
    """
    if isinstance(network, ExportedNetwork):
        return read_onnx(network, input_shape)
    training = _trace(network, input_shape, with_auxiliary_heads)
    if len(training.outputs) == 1:
        return training
    try:
        return _trace(network, input_shape, evaluation_mode, "deployed ").beside(training)
    except UserError as error:
        _log.warning("%s; its FLOPs are counted as in training", error)
        return training


def _trace(network: Any, input_shape: tuple[int, ...], modes: Callable[[Any], Any], prefix: str = "") -> Program:
    """In these modes; names of tensors begin with `prefix`."""
    paddle = import_paddle()
    reader = PirReader(paddle, prefix) if paddle.framework.use_pir_api() else OldIrReader(paddle, prefix)
    with modes(network), known_sizes(paddle, network, reader.value_type) as record:
        traced = _run_symbolically(paddle, network, input_shape)
        try:
            operators, shapes, tensors = reader.read(traced.main_program)
        except Branching as error:
            raise UserError(f"{type(network).__name__} branches on values, which pruning cannot follow") from error
        outputs = tuple(
            reader.name(value) for value in paddle.utils.flatten(traced.outputs) if isinstance(value, reader.value_type)
        )
    by_tensor = _parameters(network)

    def extent(number: Any) -> Extent:
        if isinstance(number, TracedSize):
            return TensorSize(reader.name(number.tensor), number.axis)
        if isinstance(number, TracedAttribute) and number.origin not in record.fixed_attributes:
            return AttributeSize(*number.origin)
        return "rest" if isinstance(number, int) and number == -1 else "fixed"

    return Program(
        operators=tuple(operators),
        shapes=shapes,
        parameters={tensor: by_tensor[name] for tensor, name in tensors.items() if name in by_tensor},
        outputs=outputs,
        extents={reader.name(value): tuple(map(extent, target)) for value, target in record.reshapes},
        fixed_sizes=tuple(TensorSize(reader.name(size.tensor), size.axis) for size in record.fixed_sizes),
    )


def _run_symbolically(paddle: Any, network: Any, input_shape: tuple[int, ...]) -> Any:
    class Traced(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @paddle.jit.not_to_static
        def forward(self, image: Any) -> Any:
            return self.network(image)

    spec = paddle.static.InputSpec(list(input_shape), "float32")
    traced = Traced()  # a variable of its own, because Paddle holds it weakly
    try:
        with without_diagnostics():
            return paddle.jit.to_static(traced, input_spec=[spec], full_graph=True).forward.concrete_program
    except Exception as error:
        size = f"{input_shape[3]} x {input_shape[2]}"
        raise UserError(
            f"{type(network).__name__} cannot be traced at dataset.size of {size}, so its channels are unknown:"
            f" {reason_of(error)}"
        ) from error


def _parameters(network: Any) -> dict[str, Parameter]:
    """The network's parameters and buffers by Paddle's name of them."""
    parameters: dict[str, Parameter] = {}
    objects: dict[str, int] = {}
    grouped = {
        id(value)
        for layer in network.sublayers(include_self=True)
        if hasattr(layer, "_groups")
        for value in layer._parameters.values()
    }
    for name, value in network.state_dict().items():
        if objects.setdefault(value.name, id(value)) != id(value):
            raise UserError(
                f"two parameters of {type(network).__name__} are both named {value.name!r}: give each its own name"
            )
        if shared := parameters.get(value.name):
            parameters[value.name] = replace(shared, aliases=(*shared.aliases, name))
        else:
            shape = tuple(value.shape)
            parameters[value.name] = Parameter(name, value.name, shape, id(value) in grouped, not value.stop_gradient)
    return parameters
