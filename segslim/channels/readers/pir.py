"""Reads a program of Paddle 3's representation (PIR)."""

from typing import Any

from segslim.channels.program import Branching, Operator

KINDS = {
    "split_with_num": "split",
    "bilinear_interp": "interpolate",
    "nearest_interp": "interpolate",
    "bicubic_interp": "interpolate",
    "sync_batch_norm": "batch_norm",
    "conv2d_transpose_bias": "conv2d_transpose",
}


class PirReader:
    """Names tensors by their value's id."""

    def __init__(self, paddle: Any) -> None:
        self.value_type: type = paddle.pir.Value

    def name(self, value: Any) -> str:
        return str(value.id)

    def read(self, program: Any) -> tuple[list[Operator], dict[str, tuple[int, ...]], dict[str, str]]:
        """The operators, the shapes of tensors, and the parameters' Paddle names by tensor."""
        operators: list[Operator] = []
        shapes: dict[str, tuple[int, ...]] = {}
        parameters: dict[str, str] = {}
        lists: dict[str, tuple[str, ...]] = {}
        constants: dict[str, Any] = {}
        splits: dict[str, Operator] = {}
        for op in program.global_block().ops:
            if list(op.blocks()):
                raise Branching
            operands = [value.source() for value in op.operands()]
            results = [self.name(value) for value in op.results()]
            shapes.update(
                (self.name(value), tuple(value.shape)) for value in op.results() if value.is_dense_tensor_type()
            )
            kind, attributes = op.name().split(".")[-1], op.attrs()
            if op.name() == "builtin.parameter":
                parameters[results[0]] = attributes["parameter_name"]
            elif op.name() == "builtin.combine":
                lists[results[0]] = tuple(self.name(value) for value in operands)
            elif op.name() == "builtin.split":
                split = splits[self.name(operands[0])]
                operators.append(Operator(split.kind, split.inputs, tuple(results), split.attributes))
            elif kind in ("full", "full_int_array"):
                constants[results[0]] = attributes["value"]
            else:
                operator = self._operator(op, kind.rstrip("_"), operands, attributes, lists, constants)
                if op.results() and not op.results()[0].is_dense_tensor_type():
                    splits[results[0]] = operator
                else:
                    operators.append(operator)
        return operators, shapes, parameters

    def _operator(
        self,
        op: Any,
        kind: str,
        operands: list[Any],
        attributes: dict[str, Any],
        lists: dict[str, tuple[str, ...]],
        constants: dict[str, Any],
    ) -> Operator:
        """An operand that is a constant is an attribute too: PIR passes axes and sizes as operands."""
        inputs: dict[str, tuple[str, ...]] = {}
        roles = op.get_input_names() if op.name().startswith("pd_op.") else map(str, range(len(operands)))
        for role, value in zip(roles, operands, strict=True):
            if value is None or not value.initialized():
                continue
            name = self.name(value)
            inputs[role] = lists.get(name, (name,))
            if name in constants:
                attributes.setdefault(role, constants[name])
        outputs = tuple(self.name(value) for value in op.results())
        return Operator(KINDS.get(kind, kind), inputs, outputs, attributes)
