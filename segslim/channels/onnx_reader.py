"""Reads an ONNX graph into the neutral form: the third reader, beside those of Paddle's two representations.

Numbers of shapes are followed from the Shape that they are read from, or the constant that they stand in, to the
operator that uses them, as `known_sizes` does for Paddle's code.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, numpy_helper

from segslim.channels.program import AttributeSize, Extent, Operator, Parameter, Program, TensorSize
from segslim.exported import ExportedNetwork
from segslim.onnx_graph import fold
from segslim.onnx_tools import attribute, copied, inputs_of

#: Operators of one tensor that treat every element alike, and what they are called here.
ALIKE = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Gelu": "gelu",
    "Mish": "mish", "HardSwish": "hardswish", "Tanh": "tanh", "Sigmoid": "sigmoid", "HardSigmoid": "hardsigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "ThresholdedRelu": "relu", "Shrink": "hardshrink", "Swish": "swish",
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs", "Reciprocal": "reciprocal", "Sign": "sign",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Clip": "clip", "Neg": "scale", "Erf": "tanh", "Not": "assign",
    "Cast": "cast", "Identity": "assign", "Dropout": "dropout",
}  # fmt: skip
#: Operators of several tensors, broadcast against each other.
COMBINING = {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum",
    "Pow": "elementwise_pow", "Sum": "add", "Mean": "add", "Where": "maximum", "Equal": "maximum",
    "Greater": "maximum", "Less": "maximum", "GreaterOrEqual": "maximum", "LessOrEqual": "maximum", "And": "maximum",
    "Or": "maximum", "Mod": "divide",
}  # fmt: skip
REDUCING = {"ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceSum": "sum", "ReduceL2": "sum"}
POOLING = ("MaxPool", "AveragePool", "LpPool")
#: Operators on numbers of shapes that only move them about.
MOVING = ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten")


def read_onnx(network: ExportedNetwork, input_shape: tuple[int, ...]) -> Program:
    """The program of a graph for one input of `input_shape` (N, C, H, W).

    Raises UserError where shapes are unknown, so that nothing could be counted.
    """
    return _Reader(network, input_shape).program()


class _Reader:
    def __init__(self, network: ExportedNetwork, input_shape: tuple[int, ...]) -> None:
        self._network, self._model = network, network.model
        fixed = copied(self._model)
        batch, channels, height, width = input_shape
        sides = (batch, height, width, channels) if network.reading.channels_last else input_shape
        constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        (image,) = inputs_of(fixed.graph)
        for side, size in zip(image.type.tensor_type.shape.dim, sides, strict=True):
            side.dim_value = size
        fold(fixed)
        self._constants = constants
        self._folded = {tensor.name: tensor for tensor in fixed.graph.initializer}
        self._shapes = {name: tuple(tensor.dims) for name, tensor in self._folded.items()}
        self._shapes |= {name: tuple(tensor.dims) for name, tensor in constants.items()}
        for info in (*fixed.graph.value_info, *fixed.graph.input, *fixed.graph.output):
            self._shapes[info.name] = tuple(side.dim_value for side in info.type.tensor_type.shape.dim)
        self._computed = {name for node in fixed.graph.node for name in node.output}
        self._numbers: dict[str, list[Any]] = {}  # of what is computed from shapes
        self._operators: list[Operator] = []
        self._extents: dict[str, tuple[Extent, ...]] = {}
        self._fixed: list[TensorSize] = []

    def program(self) -> Program:
        behind = {self._network.reading.scores}  # softmax, sigmoid or argmax: no channels are left there
        for node in self._model.graph.node:
            if behind.intersection(node.input):
                behind.update(node.output)
            elif self._computed.isdisjoint(node.output):
                self._follow(node)
            else:
                self._add(node)
        weights = self._network.state_dict()
        grouped = {
            node.input[1]
            for node in self._model.graph.node
            if node.op_type == "Conv" and attribute(node, "group", 1) > 1
        }
        statistics = {
            name for node in self._model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]
        }
        names = [output.name for output in self._model.graph.output]
        chosen = self._network.reading.scores
        return Program(
            operators=tuple(self._operators),
            shapes=self._shapes,
            parameters={
                name: Parameter(name, name, weight.shape, name in grouped, name not in statistics)
                for name, weight in weights.items()
            },
            outputs=(chosen, *(name for name in names if name != chosen)),
            extents=self._extents,
            fixed_sizes=tuple(self._fixed),
        )

    # numbers of shapes

    def _entries(self, name: str) -> list[Any]:
        """What each number in a tensor is: TensorSize, AttributeSize or "fixed"."""
        if name in self._numbers:
            return self._numbers[name]
        if name in self._constants:
            return [AttributeSize(name, str(at)) for at in range(math.prod(self._shapes[name]))]
        return ["fixed"] * math.prod(self._shapes.get(name, ()))

    def _follow(self, node: NodeProto) -> None:
        """A node that the input's size decides."""
        inputs = [name for name in node.input if name]
        made = node.output[0]
        if node.op_type == "Shape":
            sides = [TensorSize(inputs[0], axis) for axis in range(len(self._shapes[inputs[0]]))]
            self._numbers[made] = sides[attribute(node, "start", 0) : attribute(node, "end", len(sides))]
            return
        given = [self._entries(name) for name in inputs]
        values = [self._value(name) for name in inputs]
        if node.op_type in MOVING:
            self._numbers[made] = given[0]
        elif node.op_type == "Concat":
            self._numbers[made] = [entry for part in given for entry in part]
        elif node.op_type == "Gather" and values[1] is not None:
            self._numbers[made] = [given[0][int(at)] for at in values[1].ravel()]
        elif node.op_type == "Slice" and all(value is not None for value in values[1:]):
            start, end, *rest = [int(value.ravel()[0]) for value in values[1:]]  # type: ignore[union-attr]
            self._numbers[made] = given[0][start : end : rest[1] if len(rest) > 1 else 1]
        elif node.op_type in ("Mul", "Div") and sum(self._varies(part) for part in given) == 1:
            # a multiple or a fraction of a size: what is read from it follows
            (part,) = [part for part in given if self._varies(part)]
            self._numbers[made] = part * max(1, *map(len, given)) if len(part) == 1 else part
        else:
            self._fix(inputs)
            self._numbers[made] = ["fixed"] * math.prod(self._shapes.get(made, ()))

    @staticmethod
    def _varies(entries: list[Any]) -> bool:
        return any(isinstance(entry, TensorSize) for entry in entries)

    def _fix(self, names: Sequence[str]) -> None:
        """Sizes that go into arithmetic must not change."""
        for name in names:
            self._fixed += [entry for entry in self._numbers.get(name, []) if isinstance(entry, TensorSize)]

    def _value(self, name: str) -> np.ndarray | None:
        tensor = self._constants.get(name) or self._folded.get(name)
        return numpy_helper.to_array(tensor) if tensor is not None else None

    def _integers(self, name: str) -> list[int]:
        value = self._value(name)
        return [] if value is None else [int(each) for each in value.ravel()]

    # operators

    def _emit(self, kind: str, made: Sequence[str], given: Mapping[str, Sequence[str]], **attributes: Any) -> None:
        roles = {role: tuple(names) for role, names in given.items() if all(names)}
        self._operators.append(Operator(kind, roles, tuple(name for name in made if name), attributes))

    def _add(self, node: NodeProto) -> None:
        inputs, made, kind = list(node.input), list(node.output), node.op_type
        x = inputs[:1]
        if (way := _WAYS.get(kind)) is not None:
            way(self, node, inputs, made)
        elif kind in ALIKE:
            self._emit(ALIKE[kind], made[:1], {"x": x})
        elif kind in COMBINING:
            self._combine(COMBINING[kind], inputs, made[0])
        elif kind in REDUCING:
            axes = self._axes(node, inputs, 1)
            keep = bool(attribute(node, "keepdims", 1))
            self._emit(REDUCING[kind], made, {"x": x}, axis=axes, keepdim=keep, reduce_all=not axes)
        elif kind in POOLING:
            self._emit("pool2d" if len(made) == 1 else "max_pool2d_with_index", made, {"x": x})
        else:
            self._emit(kind, made, {"x": inputs})  # no rule knows it: what reaches it stays
        for name in inputs:  # numbers of shapes that went into data
            if kind not in ("Reshape", "Resize", "Upsample", "Expand", "Slice", "Tile"):
                self._fix([name])

    def _axes(self, node: NodeProto, inputs: list[str], at: int) -> list[int]:
        """Of the attribute `axes`, or of the input that has taken its place."""
        given = attribute(node, "axes", None)
        if given is not None:
            return list(given)
        return self._integers(inputs[at]) if len(inputs) > at and inputs[at] else []

    def _combine(self, kind: str, inputs: list[str], made: str) -> None:
        """Two tensors at a time."""
        left = inputs[0]
        if len(inputs) == 1:
            self._emit("assign", [made], {"x": [left]})
        for at, right in enumerate(inputs[1:], 1):
            result = made if at == len(inputs) - 1 else f"{made}:{at}"
            self._shapes.setdefault(result, np.broadcast_shapes(self._shapes[left], self._shapes[right]))
            self._emit(kind, [result], {"x": [left], "y": [right]})
            left = result

    def _convolve(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        kind = "conv2d" if node.op_type == "Conv" else "conv2d_transpose"
        roles = {"input": inputs[:1], "filter": inputs[1:2], "bias": inputs[2:3] or [""]}
        self._emit(kind, made, roles, groups=attribute(node, "group", 1))

    def _multiply(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        transposed = {f"transpose_{side}": bool(attribute(node, f"trans{name}", 0)) for side, name in ("xA", "yB")}
        product = made[0] if len(inputs) < 3 or not inputs[2] else f"{made[0]}:product"
        self._shapes.setdefault(product, self._shapes[made[0]])
        self._emit("matmul", [product], {"x": inputs[:1], "y": inputs[1:2]}, **transposed)
        if product != made[0]:
            self._emit("add", made, {"x": [product], "y": inputs[2:]})

    def _normalize(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        names = ("x", "scale", "bias", "mean", "variance")
        kinds = {"BatchNormalization": "batch_norm", "InstanceNormalization": "instance_norm"}
        kind = kinds.get(node.op_type, "layer_norm" if node.op_type == "LayerNormalization" else "group_norm")
        rank = len(self._shapes[inputs[0]])
        roles = {name: [each] for name, each in zip(names, inputs, strict=False)}
        self._emit(kind, made[:1], roles, begin_norm_axis=attribute(node, "axis", -1) % rank)

    def _pool_all(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        rank = len(self._shapes[inputs[0]])
        self._emit("mean", made, {"x": inputs}, axis=list(range(2, rank)), keepdim=True)

    def _resize(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("interpolate", made, {"x": inputs[:1]})
        sizes = inputs[3] if len(inputs) > 3 else ""
        if sizes and not attribute(node, "axes", None):
            self._extents[made[0]] = tuple(self._entries(sizes))

    def _concatenate(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("concat", made, {"x": inputs}, axis=attribute(node, "axis", 0))

    def _split(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        numbers = inputs[1] if len(inputs) > 1 else ""
        settable = self._entries(numbers) if numbers in self._constants else []
        equal = not numbers and attribute(node, "split", None) is None
        axis = attribute(node, "axis", 0)
        self._emit("split", made, {"x": inputs[:1]}, axis=axis, num=len(made) if equal else None, sizes=settable)

    def _slice(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        axes = self._integers(inputs[3]) if len(inputs) > 3 and inputs[3] else []
        axes = axes or list(range(len(self._integers(inputs[1]))))
        rank = len(self._shapes[inputs[0]])
        self._emit("slice", made, {"x": inputs[:1]}, axes=[axis % rank for axis in axes])

    def _transpose(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        rank = len(self._shapes[inputs[0]])
        self._emit("transpose", made, {"x": inputs}, perm=list(attribute(node, "perm", range(rank)[::-1])))

    def _reshape(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        entries, values = self._entries(inputs[1]), self._integers(inputs[1])
        keep = not attribute(node, "allowzero", 0)
        extents: list[Extent] = []
        for axis, entry in enumerate(entries):
            value = values[axis] if axis < len(values) else 0
            if value == -1:
                extents.append("rest")
            elif value == 0 and keep:
                extents.append(TensorSize(inputs[0], axis))
            else:
                extents.append(entry)
        self._extents[made[0]] = tuple(extents)
        self._emit("reshape", made, {"x": inputs[:1]})

    def _flatten(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("flatten", made, {"x": inputs[:1]})

    def _expand(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        source, result = self._shapes[inputs[0]], self._shapes[made[0]]
        self._emit("expand", made, {"x": inputs[:1]})
        target = self._entries(inputs[1]) if len(inputs) > 1 else []
        if len(source) == len(result) == len(target):
            self._extents[made[0]] = tuple(
                entry if old == new else "fixed" for entry, old, new in zip(target, source, result, strict=True)
            )

    def _tile(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("tile", made, {"x": inputs[:1]}, repeat_times=self._integers(inputs[1]))

    def _pad(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("pad", made, {"x": inputs[:1]})

    def _move_pixels(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("pixel_shuffle", made, {"x": inputs}, strided=attribute(node, "mode", b"DCR") == b"DCR")

    def _softmax(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        opset = next(entry.version for entry in self._model.opset_import if entry.domain in ("", "ai.onnx"))
        axis = attribute(node, "axis", -1 if opset >= 13 else 1)
        self._emit("softmax" if opset >= 13 or axis == -1 else node.op_type, made, {"x": inputs}, axis=axis)

    def _prelu(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        slope, rank = self._shapes[inputs[1]], len(self._shapes[inputs[0]])
        known = math.prod(slope) == 1 or (len(slope) == rank - 1 and math.prod(slope) == slope[0])
        self._emit("prelu" if known else node.op_type, made, {"x": inputs[:1], "alpha": inputs[1:]})

    def _gather(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("gather", made, {"x": inputs[:1], "index": inputs[1:]}, axis=attribute(node, "axis", 0))

    def _sample(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        self._emit("grid_sample", made, {"x": inputs[:1]})

    def _einsum(self, node: NodeProto, inputs: list[str], made: list[str]) -> None:
        equation = attribute(node, "equation", b"").decode().replace(" ", "")
        self._emit("einsum", made, {"x": inputs}, equation=equation)


_WAYS: dict[str, Callable[[_Reader, NodeProto, list[str], list[str]], None]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _Reader._convolve),
    **dict.fromkeys(("MatMul", "Gemm"), _Reader._multiply),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"), _Reader._normalize
    ),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _Reader._pool_all),
    **dict.fromkeys(("Resize", "Upsample"), _Reader._resize),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), _Reader._flatten),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _Reader._softmax),
    "Concat": _Reader._concatenate,
    "Split": _Reader._split,
    "Slice": _Reader._slice,
    "Transpose": _Reader._transpose,
    "Reshape": _Reader._reshape,
    "Expand": _Reader._expand,
    "Tile": _Reader._tile,
    "Pad": _Reader._pad,
    "DepthToSpace": _Reader._move_pixels,
    "PRelu": _Reader._prelu,
    "Gather": _Reader._gather,
    "GridSample": _Reader._sample,
    "Einsum": _Reader._einsum,
}
