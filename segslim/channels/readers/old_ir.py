"""Reads a program of Paddle 2's representation (blocks of named variables)."""

from typing import Any

from segslim.channels.program import Branching, Operator

KINDS = {
    "bilinear_interp": "interpolate",
    "nearest_interp": "interpolate",
    "bicubic_interp": "interpolate",
    "sync_batch_norm": "batch_norm",
    "flatten_contiguous_range": "flatten",
    "hard_swish": "hardswish",
    "hard_sigmoid": "hardsigmoid",
    "elementwise_add": "add",
    "elementwise_sub": "subtract",
    "elementwise_mul": "multiply",
    "elementwise_div": "divide",
    "elementwise_max": "maximum",
    "elementwise_min": "minimum",
    "grid_sampler": "grid_sample",
    "reduce_mean": "mean",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_sum": "sum",
    "sum": "add_n",
}
ATTRIBUTES = {"trans_x": "transpose_x", "trans_y": "transpose_y", "dim": "axis", "keep_dim": "keepdim"}
#: Results that are no tensors of the network's own.
BYPRODUCTS = ("XShape", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance", "ReserveSpace", "Mean", "Variance")


class OldIrReader:
    """Names tensors by their variable."""

    def __init__(self, paddle: Any) -> None:
        self.value_type: type = paddle.static.Variable

    def name(self, value: Any) -> str:
        return value.name

    def read(self, program: Any) -> tuple[list[Operator], dict[str, tuple[int, ...]], dict[str, str]]:
        """The operators, the shapes of tensors, and the parameters' Paddle names by tensor."""
        if program.num_blocks > 1:
            raise Branching
        block = program.global_block()
        shapes = {name: tuple(variable.shape) for name, variable in block.vars.items() if hasattr(variable, "shape")}
        parameters = {name: name for name, variable in block.vars.items() if variable.persistable}
        return [_operator(op) for op in block.ops], shapes, parameters


def _operator(op: Any) -> Operator:
    kind = op.type.removesuffix("_v2").removesuffix("2")
    attributes = {ATTRIBUTES.get(key, key): value for key, value in op.all_attrs().items() if not key.startswith("op_")}
    if kind == "transpose":
        attributes["perm"] = attributes["axis"]
    inputs = {role.lower(): tuple(op.input(role)) for role in op.input_names if op.input(role)}
    outputs = tuple(name for role in op.output_names if role not in BYPRODUCTS for name in op.output(role))
    if "Mask" in op.output_names:  # pooling with indices, dropout: the tensor itself comes first
        outputs = (*op.output("Out"), *op.output("Mask"))
    return Operator(KINDS.get(kind, kind), inputs, outputs, attributes)
