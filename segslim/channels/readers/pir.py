"""Reads a program of Paddle 3's representation (PIR)."""

from typing import Any

from segslim.channels.program import Branching, Operator

KINDS = {
    "split_with_num": "split",
    "bilinear_interp": "interpolate",
    "nearest_interp": "interpolate",
    "bicubic_interp": "interpolate",
    "sync_batch_norm": "batch_norm",
}


class PirReader:
    """Names tensors by their value's id."""

    def __init__(self, paddle: Any) -> None:
        self.value_type: type = paddle.pir.Value

    def name(self, value: Any) -> str:
        return str(value.id)

    def read(self, program: Any) -> tuple[list[Operator], dict[str, tuple[int, ...]], dict[str, str]]:
        """The operators, the shapes of tensors, and the parameters' Paddle names by tensor."""
        reading = _Reading(self)
        for op in program.global_block().ops:
            reading.add(op)
        return reading.operators, reading.shapes, reading.parameters


class _Reading:
    """What was read so far. PIR packs tensors into lists, and passes axes and sizes as constant tensors."""

    def __init__(self, reader: PirReader) -> None:
        self.name = reader.name
        self.operators: list[Operator] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parameters: dict[str, str] = {}
        self.packed: dict[str, tuple[str, ...]] = {}
        self.constants: dict[str, Any] = {}
        self.unpacked: dict[str, Operator] = {}

    def add(self, op: Any) -> None:
        if list(op.blocks()):
            raise Branching
        operands = [value.source() for value in op.operands()]
        results = tuple(self.name(value) for value in op.results())
        tensors = [value for value in op.results() if value.is_dense_tensor_type()]
        self.shapes.update((self.name(value), tuple(value.shape)) for value in tensors)
        match op.name():
            case "builtin.parameter":
                self.parameters[results[0]] = op.attrs()["parameter_name"]
            case "builtin.combine":
                self.packed[results[0]] = tuple(self.name(value) for value in operands)
            case "builtin.split":
                whole = self.unpacked[self.name(operands[0])]
                self.operators.append(Operator(whole.kind, whole.inputs, results, whole.attributes))
            case "pd_op.full" | "pd_op.full_int_array":
                self.constants[results[0]] = op.attrs()["value"]
            case _:
                operator = self._operator(op, operands, results)
                if results and not tensors:
                    self.unpacked[results[0]] = operator  # a list, which a builtin.split takes apart
                else:
                    self.operators.append(operator)

    def _operator(self, op: Any, operands: list[Any], results: tuple[str, ...]) -> Operator:
        dialect, _, name = op.name().partition(".")
        kind, attributes = name.rstrip("_"), op.attrs()
        inputs: dict[str, tuple[str, ...]] = {}
        roles = op.get_input_names() if dialect == "pd_op" else map(str, range(len(operands)))
        for role, value in zip(roles, operands, strict=True):
            if value is None or not value.initialized():
                continue
            tensor = self.name(value)
            inputs[role] = self.packed.get(tensor, (tensor,))
            if tensor in self.constants:
                attributes.setdefault(role, self.constants[tensor])
        return Operator(KINDS.get(kind, kind), inputs, results, attributes)
