"""Traces a dygraph network into a neutral program, and leaves the network as it was."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from segslim.channels.program import Branching, Extent, Follows, Parameter, Program, Stored
from segslim.channels.readers.old_ir import OldIrReader
from segslim.channels.readers.pir import PirReader
from segslim.channels.sizes import Size, SizeRecord, StoredSize, known_sizes, replaced
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle


def trace(network: Any, input_shape: tuple[int, ...]) -> Program:
    """Traces `network` for one float32 input of `input_shape` (N, C, H, W), with its auxiliary heads and without
    dropout.

    The network's Python runs as it is, on symbolic tensors, rather than through Paddle's rewriting of its source: 4 to
    6 times faster, and every size is known. Raises UserError when the network decides by a tensor's value, or names
    two parameters alike.
    """
    paddle = import_paddle()
    reader = PirReader(paddle) if paddle.framework.use_pir_api() else OldIrReader(paddle)
    with with_auxiliary_heads(network), known_sizes(paddle, network, reader.value_type) as record:
        traced = _run_symbolically(paddle, network, input_shape)
        try:
            operators, shapes, tensors = reader.read(traced.main_program)
        except Branching as error:
            raise UserError(f"{type(network).__name__} branches on values, which pruning cannot follow") from error
        outputs = tuple(
            reader.name(value) for value in paddle.utils.flatten(traced.outputs) if isinstance(value, reader.value_type)
        )
    known = _parameters(network)
    parameters = {tensor: known[name] for tensor, name in tensors.items() if name in known}
    extents = {
        reader.name(value): tuple(_extent(number, reader, record) for number in target)
        for value, target in record.reshapes
    }
    measured = tuple(Follows(reader.name(size.tensor), size.axis) for size in record.measured)
    return Program(tuple(operators), shapes, parameters, outputs, extents, measured)


def _run_symbolically(paddle: Any, network: Any, input_shape: tuple[int, ...]) -> Any:
    class Traced(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @paddle.jit.not_to_static
        def forward(self, image: Any) -> Any:
            return self.network(image)

    spec = paddle.static.InputSpec(list(input_shape), "float32")
    traced = Traced()  # Paddle holds it weakly
    try:
        with _without_diagnostics(paddle):
            return paddle.jit.to_static(traced, input_spec=[spec], full_graph=True).forward.concrete_program
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise UserError(f"{type(network).__name__} cannot be traced at input shape {input_shape}: {reason}") from error


@contextmanager
def _without_diagnostics(paddle: Any) -> Iterator[None]:
    """Paddle writes the whole Python stack into every operator, and Paddle 3 lists all operators so far after every
    layer to name them: three quarters of the time for a large network, called from deep within a program.

    It can go when tracing HRNet takes the same time without it.
    """
    layers, extract_stack = paddle.nn.layer.layers, traceback.extract_stack
    with ExitStack() as replacements:
        replacements.enter_context(replaced(traceback, "extract_stack", lambda *_, **__: extract_stack(limit=1)))
        if hasattr(layers, "name_struct"):
            replacements.enter_context(replaced(layers, "name_struct", nullcontext))
        yield


@contextmanager
def with_auxiliary_heads(network: Any) -> Iterator[None]:
    """Containers in training mode, so that auxiliary heads run; leaves in evaluation mode, so that dropout adds no
    masks.
    """
    layers = list(network.sublayers(include_self=True))
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = bool(list(layer.children())) and not type(layer).__name__.startswith("Drop")
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _parameters(network: Any) -> dict[str, Parameter]:
    """The network's parameters and buffers by Paddle's name for them."""
    found: dict[str, Parameter] = {}
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
                f"two parameters of {type(network).__name__} are both named {value.name!r}: name them apart"
            )
        if known := found.get(value.name):
            found[value.name] = replace(known, aliases=(*known.aliases, name))
        else:
            shape = tuple(value.shape)
            found[value.name] = Parameter(name, value.name, shape, id(value) in grouped, not value.stop_gradient)
    return found


def _extent(number: Any, reader: Any, record: SizeRecord) -> Extent:
    if isinstance(number, Size):
        return Follows(reader.name(number.tensor), number.axis)
    if isinstance(number, StoredSize) and number.origin not in record.computed:
        return Stored(*number.origin)
    return "rest" if isinstance(number, int) and number == -1 else "fixed"
