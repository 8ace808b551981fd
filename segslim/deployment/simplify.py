"""Cleans a converted ONNX graph for the engines: constants folded, nothing left that does nothing, parameters named.

Parameters stay initializers under their Paddle names, and BatchNormalization stays a node of its own: pruning masks and
quantization find them there, and every engine folds it when it loads the file.
"""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def simplify(model: ModelProto, output_name: str) -> ModelProto:
    """A clean copy of `model`, which has one output: it is named `output_name`."""
    model = ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    _constants_to_initializers(graph)
    _drop_identities(graph)
    _fuse_bias(graph)
    _forget_shapes(graph)
    while _fold_shapes(model) or _fold_constants(model):
        pass
    _drop_unused(graph)
    _rename_output(graph, output_name)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _constants_to_initializers(graph: GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _drop_identities(graph: GraphProto) -> None:
    outputs = {output.name for output in graph.output}
    sources: dict[str, str] = {}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.output[0] not in outputs]:
        sources[node.output[0]] = sources.get(node.input[0], node.input[0])
        graph.node.remove(node)
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = sources.get(name, name)


def _fuse_bias(graph: GraphProto) -> None:
    """Conv -> Add(Reshape(bias)), as paddle2onnx 2.x writes it, becomes Conv with that bias."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    producers = _producers(graph)
    uses = Counter(name for node in graph.node for name in node.input)
    for add in [node for node in graph.node if node.op_type == "Add"]:
        convolution, reshape = (producers.get(name) for name in add.input)
        if convolution is None or reshape is None or convolution.op_type not in ("Conv", "ConvTranspose"):
            continue
        if reshape.op_type != "Reshape" or len(convolution.input) != 2 or uses[convolution.output[0]] != 1:
            continue
        bias = initializers.get(reshape.input[0])
        if bias is None or len(bias.dims) != 1:
            continue
        convolution.input.append(bias.name)
        convolution.output[0] = add.output[0]
        graph.node.remove(add)


def _forget_shapes(graph: GraphProto) -> None:
    """Drops the converter's own shapes: its names for dynamic sizes would win over what inference finds."""
    del graph.value_info[:]
    for output in graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()


def _fold_shapes(model: ModelProto) -> bool:
    """Replaces each Shape of a tensor of known size by a constant; true if there was one."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {info.name: _static_shape(info) for info in [*inferred.value_info, *inferred.input, *inferred.output]}
    known = [node for node in model.graph.node if node.op_type == "Shape" and shapes.get(node.input[0])]
    for node in known:
        shape = np.array(shapes[node.input[0]], dtype=np.int64)
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = shape[attributes.get("start", 0) : attributes.get("end", len(shape))]
        model.graph.initializer.append(numpy_helper.from_array(shape, node.output[0]))
        model.graph.node.remove(node)
    return bool(known)


def _static_shape(info: onnx.ValueInfoProto) -> list[int] | None:
    dimensions = info.type.tensor_type.shape.dim
    if not dimensions or not all(dimension.HasField("dim_value") for dimension in dimensions):
        return None
    return [dimension.dim_value for dimension in dimensions]


def _fold_constants(model: ModelProto) -> bool:
    """Replaces what depends on constants alone by its value, computed by ONNX Runtime; true if there was something."""
    graph = model.graph
    folded: list[NodeProto] = []
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.input and all(name in known or not name for name in node.input):
            folded.append(node)
            known.update(node.output)
    if not folded:
        return False
    remaining = {name for node in graph.node if node not in folded for name in node.input} | {
        o.name for o in graph.output
    }
    wanted = [name for node in folded for name in node.output if name in remaining]
    for node in folded:
        graph.node.remove(node)
    graph.initializer.extend(_values(model, folded, wanted) if wanted else [])
    return True


def _values(model: ModelProto, nodes: list[NodeProto], wanted: list[str]) -> list[TensorProto]:
    """The tensors `wanted`, computed by `nodes` from the initializers of `model`."""
    inputs = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    part = helper.make_model(
        helper.make_graph(nodes, "constants", [], outputs, constants),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [numpy_helper.from_array(value, name) for name, value in zip(wanted, session.run(wanted, {}), strict=True)]


def _drop_unused(graph: GraphProto) -> None:
    used = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _rename_output(graph: GraphProto, name: str) -> None:
    (output,) = graph.output
    last = _producers(graph)[output.name]
    if last.op_type == "Identity" and last.input[0] in _producers(graph):
        graph.node.remove(last)
        old = last.input[0]
    else:
        old = output.name
    output.name = name
    for node in graph.node:
        node.input[:] = [name if used == old else used for used in node.input]
        node.output[:] = [name if made == old else made for made in node.output]


def _producers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}
