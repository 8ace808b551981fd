"""The graph that engines run: the exported one, between an image as the data set makes it and the data's classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segslim.errors import UserError
from segslim.exported.meaning import Reading
from segslim.onnx_graph import drop_unused, fold, infer_shapes
from segslim.onnx_tools import attribute, copied

PER_CHANNEL_OPSET = 13  # of QuantizeLinear, and of axes as we write them
#: The score of a class that the network does not know, and the least probability that a logarithm is taken of.
ABSENT, LEAST = -1e4, 1e-6


class _Builder:
    """Nodes that are made one after another, and their constants, which go into the graph at once."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph, self.nodes = graph, list[NodeProto]()

    def constant(self, value: float | Sequence[int]) -> str:
        name = f"constant:{value if isinstance(value, float) else list(value)}"
        if all(tensor.name != name for tensor in self.graph.initializer):
            kind = np.float32 if isinstance(value, float) else np.int64
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], made: str, **given: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=f"segslim:{made}", **given))
        return made


def engine_graph(
    given: ModelProto, reading: Reading, num_classes: int, input_shape: Sequence[int | None], output: str
) -> ModelProto:
    """See ExportedNetwork.graph; `given` stays as it is."""
    model = with_opset(copied(given))
    graph = model.graph
    _rename(graph, {output: f"{output}:given"} if reading.scores != output else {})
    before, behind = _Builder(graph), _Builder(graph)
    image = _adapt(before, reading)
    _finish(behind, reading, num_classes, output)
    shape = [side or name for side, name in zip(input_shape, ("N", "C", "H", "W"), strict=True)]
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in (*before.nodes, *graph.node, *behind.nodes)]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(image, TensorProto.FLOAT, shape))
    kind = TensorProto.INT32 if output == "argmax" else TensorProto.FLOAT
    graph.output.append(helper.make_tensor_value_info(output, kind, None))
    drop_unused(graph)
    fold(model)
    return model


def _adapt(build: _Builder, reading: Reading) -> str:
    """From an image N,C,H,W float32 to what the graph takes. Returns the name of that image."""
    taken = {name for node in build.graph.node for name in (*node.input, *node.output)}
    image = next(name for name in ("x", "image", "segslim:image") if name not in taken)
    tensor = image
    if reading.reverse:
        tensor = build.add("Gather", [tensor, build.constant(range(reading.channels)[::-1])], "image:bgr", axis=1)
    if reading.channels_last:
        tensor = build.add("Transpose", [tensor], "image:last", perm=[0, 2, 3, 1])
    if reading.integer:
        tensor = build.add("Cast", [build.add("Round", [tensor], "image:round")], "image:uint8", to=TensorProto.UINT8)
    if not build.nodes:
        return reading.image
    build.nodes[-1].output[0] = reading.image
    return image


def _finish(build: _Builder, reading: Reading, num_classes: int, output: str) -> None:
    """From the scores to the classes of the data, and to the output."""
    tensor = reading.scores
    if reading.channels_last:
        tensor = build.add("Transpose", [tensor], "scores:planes", perm=[0, 3, 1, 2])
    if reading.logarithm:
        clipped = build.add("Clip", [tensor, build.constant(LEAST), build.constant(1 - LEAST)], "scores:clipped")
        tensor = build.add("Log", [clipped], "scores:log")
        if reading.logarithm == "sigmoid":
            rest = build.add(
                "Log", [build.add("Sub", [build.constant(1.0), clipped], "scores:rest")], "scores:log rest"
            )
            tensor = build.add("Sub", [tensor, rest], "scores:odds")
    if reading.planes != tuple(range(num_classes)):
        planes = [_plane(build, reading, tensor, each) for each in range(num_classes)]
        tensor = build.add("Concat", planes, "scores:classes", axis=1)
    if output == "softmax":
        build.add("Softmax", [tensor], "softmax", axis=1)
    elif output == "argmax":
        ids = build.add("ArgMax", [tensor], "argmax:long", axis=1, keepdims=0)
        build.add("Cast", [ids], "argmax", to=TensorProto.INT32)
    elif tensor != "logits":
        build.add("Identity", [tensor], "logits")


def _plane(build: _Builder, reading: Reading, scores: str, each: int) -> str:
    """Of one class: that of its channel, the largest of several, or a constant where it has none."""
    own = [channel for channel, its in enumerate(reading.planes) if its == each]
    parts = [
        build.add("Gather", [scores, build.constant([channel])], f"scores:{each}:{channel}", axis=1)
        for channel in own or [0]
    ]
    if own:
        return parts[0] if len(parts) == 1 else build.add("Max", parts, f"scores:{each}")
    level = reading.threshold if each == 0 and reading.threshold is not None else ABSENT
    none = build.add("Mul", [parts[0], build.constant(0.0)], f"scores:{each}:none")
    return build.add("Add", [none, build.constant(float(level))], f"scores:{each}")


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in (*graph.initializer, *graph.input):
        tensor.name = names.get(tensor.name, tensor.name)


def with_opset(model: ModelProto, opset: int = PER_CHANNEL_OPSET) -> ModelProto:
    """Raises the opset of a model of 11 or 12 to 13, in place: axes become inputs. Returns it.

    onnx.version_converter renames tensors, by which ranges and weights are known. Raises UserError for a Softmax over
    several axes, which 13 does not have.
    """
    entry = next(each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if entry.version >= opset:
        return model
    graph = model.graph
    for at, node in enumerate(graph.node):
        if node.op_type in ("Softmax", "LogSoftmax", "Hardmax"):
            _check_softmax(node, model)
        for given in list(node.attribute):
            moved = (node.op_type in ("Squeeze", "Unsqueeze", "ReduceSum") and given.name == "axes") or (
                node.op_type == "Split" and given.name == "split"
            )
            if moved:
                name = f"{node.output[0]}:{given.name}:{at}"
                graph.initializer.append(numpy_helper.from_array(np.array(given.ints, np.int64), name))
                node.input.append(name)
                node.attribute.remove(given)
    entry.version = opset
    return model


def _check_softmax(node: NodeProto, model: ModelProto) -> None:
    axis = attribute(node, "axis", 1)
    known = infer_shapes(model).get(node.input[0])
    rank = len(known.type.tensor_type.shape.dim) if known is not None else 0
    if axis not in (-1, rank - 1):
        raise UserError(f"model.file: {node.op_type} over all axes from {axis} on; export it again with opset 13")
    for given in node.attribute:
        given.i = -1 if given.name == "axis" else given.i
