"""The neutral form of a traced network, and one thin reader for each of Paddle's intermediate representations.

Only the readers know Paddle's representations. Kinds, roles and attributes have one spelling for every Paddle; no
reader knows of channels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Operator:
    """One operator of a program: its kind, the names of its tensors by role, and its attributes."""

    kind: str
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def input(self, *roles: str) -> str:
        """The tensor in the first of these roles that the operator has."""
        return self.inputs[next((role for role in roles if role in self.inputs), roles[0])][0]

    @property
    def output(self) -> str:
        """The first result."""
        return self.outputs[0]

    @property
    def all_inputs(self) -> tuple[str, ...]:
        return tuple(name for names in self.inputs.values() for name in names)

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in its feature maps: 1, or -1 for channels-last layouts."""
        layout = self.attributes.get("data_format", self.attributes.get("data_layout", "NCHW"))
        return -1 if layout in ("NHWC", "NLC", "NDHWC") else 1


@dataclass(frozen=True)
class Parameter:
    """A parameter or persistent buffer of the network.

    name: its first key in the state dict; aliases: its other keys, when layers share it; tensor: its name inside
    Paddle, which exported files keep; grouped: whether its layer is a convolution, with a number of groups to set;
    trainable: whether an optimizer changes it.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    grouped: bool
    trainable: bool
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorSize:
    """A number in a reshape that was read from one axis of a tensor, maybe times or divided by a constant."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class AttributeSize:
    """A number in a reshape that is an attribute of a layer, used only as a size: it can be set to the new number of
    channels.
    """

    layer: str
    attribute: str


#: Where one number of a reshape's target comes from. "rest" is Paddle's -1; "fixed" is any other number.
Extent = TensorSize | AttributeSize | str


@dataclass(frozen=True)
class Program:
    """A traced network.

    shapes: of every tensor, complete for the traced input; parameters: by tensor name; outputs: every tensor that the
    network returns, auxiliary heads included; extents: for the output of a reshape, where each number of its target
    comes from; fixed_sizes: axes whose size went into arithmetic (an attention's `C ** -0.5`) and must not change.
    """

    operators: tuple[Operator, ...]
    shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, Parameter]
    outputs: tuple[str, ...]
    extents: dict[str, tuple[Extent, ...]]
    fixed_sizes: tuple[TensorSize, ...]

    def beside(self, other: "Program") -> "Program":
        """This program and, after it, another of the same network, with other names: both hold for its channels."""
        return Program(
            (*self.operators, *other.operators),
            {**self.shapes, **other.shapes},
            {**self.parameters, **other.parameters},
            (*self.outputs, *other.outputs),
            {**self.extents, **other.extents},
            (*self.fixed_sizes, *other.fixed_sizes),
        )

    def deployed(self) -> set[str]:
        """The tensors that the first output depends on: what is left when auxiliary heads are not run."""
        needed = set(self.outputs[:1])
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.all_inputs)
        return needed


class Branching(Exception):
    """Raised by a reader for a program with conditions or loops, which the channel graph does not follow."""


#: The neutral kind of an operator where Paddle's name differs.
PIR_KINDS = {
    "bilinear_interp": "interpolate", "nearest_interp": "interpolate", "bicubic_interp": "interpolate",
    "split_with_num": "split", "sync_batch_norm": "batch_norm",
}  # fmt: skip
OLD_IR_KINDS = PIR_KINDS | {
    "elementwise_add": "add", "elementwise_sub": "subtract", "elementwise_mul": "multiply", "elementwise_div": "divide",
    "elementwise_max": "maximum", "elementwise_min": "minimum", "sum": "add_n",
    "reduce_mean": "mean", "reduce_max": "max", "reduce_min": "min", "reduce_sum": "sum",
    "hard_swish": "hardswish", "hard_sigmoid": "hardsigmoid",
    "flatten_contiguous_range": "flatten", "grid_sampler": "grid_sample",
}  # fmt: skip
OLD_IR_ATTRIBUTES = {"trans_x": "transpose_x", "trans_y": "transpose_y", "dim": "axis", "keep_dim": "keepdim"}
#: Outputs of Paddle 2's operators that no other operator reads.
OLD_IR_BYPRODUCTS = {
    "XShape", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance", "ReserveSpace", "Mean", "Variance",
}  # fmt: skip

#: What `read` returns: the operators, the shapes of tensors, and the parameters' Paddle names by tensor.
Contents = tuple[list[Operator], dict[str, tuple[int, ...]], dict[str, str]]


class PirReader:
    """Reads one program of Paddle 3's representation (PIR); a tensor is named by its value's id, behind `prefix`."""

    def __init__(self, paddle: Any, prefix: str) -> None:
        self.value_type: type = paddle.pir.Value
        self._prefix = prefix
        self._operators: list[Operator] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._parameters: dict[str, str] = {}
        # PIR packs tensors into lists, and passes axes and sizes as constant tensors: both are resolved here
        self._packed: dict[str, tuple[str, ...]] = {}
        self._constants: dict[str, Any] = {}
        self._makers_of_lists: dict[str, Operator] = {}

    def name(self, value: Any) -> str:
        return f"{self._prefix}{value.id}"

    def read(self, program: Any) -> Contents:
        """Raises Branching for a program with nested blocks."""
        for op in program.global_block().ops:
            if list(op.blocks()):
                raise Branching
            self._add(op)
        return self._operators, self._shapes, self._parameters

    def _add(self, op: Any) -> None:
        operands = [value.source() for value in op.operands()]
        results = tuple(self.name(value) for value in op.results())
        tensors = [value for value in op.results() if value.is_dense_tensor_type()]
        self._shapes.update((self.name(value), tuple(value.shape)) for value in tensors)
        match op.name():
            case "builtin.parameter":
                self._parameters[results[0]] = op.attrs()["parameter_name"]
            case "builtin.combine":
                self._packed[results[0]] = tuple(self.name(value) for value in operands)
            case "builtin.split":
                maker = self._makers_of_lists[self.name(operands[0])]
                self._operators.append(Operator(maker.kind, maker.inputs, results, maker.attributes))
            case "builtin.slice" if self.name(operands[0]) in self._packed:  # one of a packed list
                chosen = self._packed[self.name(operands[0])][op.attrs()["index"]]
                self._operators.append(Operator("assign", {"x": (chosen,)}, results))
            case "pd_op.full" | "pd_op.full_int_array":
                self._constants[results[0]] = op.attrs()["value"]
            case _:
                operator = self._operator(op, operands, tuple(self.name(value) for value in tensors))
                for value in op.results():
                    if not value.is_dense_tensor_type():  # a list: the builtin.split that follows names its tensors
                        self._makers_of_lists[self.name(value)] = operator
                if tensors or not results:
                    self._operators.append(operator)

    def _operator(self, op: Any, operands: list[Any], results: tuple[str, ...]) -> Operator:
        dialect, _, name = op.name().partition(".")
        kind, attributes = name.rstrip("_"), op.attrs()  # relu_ is relu in place
        inputs: dict[str, tuple[str, ...]] = {}
        roles = op.get_input_names() if dialect == "pd_op" else map(str, range(len(operands)))
        for role, value in zip(roles, operands, strict=True):
            if value is None or not value.initialized():  # an optional input that is absent
                continue
            tensor = self.name(value)
            if tensor in self._makers_of_lists:  # a list that is taken whole: no rule knows that
                kind, inputs[role] = f"{kind} of a list", self._makers_of_lists[tensor].all_inputs
                continue
            inputs[role] = self._packed.get(tensor, (tensor,))
            if tensor in self._constants:
                attributes.setdefault(role, self._constants[tensor])
        return Operator(PIR_KINDS.get(kind, kind), inputs, results, attributes)


class OldIrReader:
    """Reads a program of Paddle 2's representation (blocks of named variables)."""

    def __init__(self, paddle: Any, prefix: str) -> None:
        self.value_type: type = paddle.static.Variable
        self._prefix = prefix

    def name(self, value: Any) -> str:
        return self._prefix + value.name

    def read(self, program: Any) -> Contents:
        """Raises Branching for a program with nested blocks."""
        if program.num_blocks > 1:
            raise Branching
        block = program.global_block()
        variables = {self._prefix + name: variable for name, variable in block.vars.items()}
        shapes = {name: tuple(variable.shape) for name, variable in variables.items() if hasattr(variable, "shape")}
        parameters = {name: variable.name for name, variable in variables.items() if variable.persistable}
        return [self._operator(op) for op in block.ops], shapes, parameters

    def _operator(self, op: Any) -> Operator:
        kind = op.type.removesuffix("_v2").removesuffix("2")
        attributes = {
            OLD_IR_ATTRIBUTES.get(key, key): value for key, value in op.all_attrs().items() if not key.startswith("op_")
        }
        if kind == "transpose":
            attributes["perm"] = attributes["axis"]
        inputs = {role.lower(): self._all(op.input(role)) for role in op.input_names if op.input(role)}
        roles = [role for role in op.output_names if role not in OLD_IR_BYPRODUCTS]
        if "Mask" in roles:  # pooling with indices, dropout: the tensor itself comes first
            roles = ["Out", "Mask"]
        outputs = self._all(name for role in roles for name in op.output(role))
        return Operator(OLD_IR_KINDS.get(kind, kind), inputs, outputs, attributes)

    def _all(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._prefix + name for name in names)
