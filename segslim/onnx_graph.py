"""ONNX graphs, cleaned for the engines.

`simplify` folds constants and removes what does nothing: onnxslim and onnxsim lose the parameters' names, or take 70 to
180 times as long. Parameters stay initializers under their Paddle names, and BatchNormalization stays a node: pruning
masks and quantization find them there, and every engine folds it when it loads the file.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from segslim.errors import UserError
from segslim.onnx_tools import session_of

LARGEST_HALF = 65504  # of float16
LARGEST_SHAPE = 64  # numbers in an initializer that may hold a shape


def logits_of(model: onnx.ModelProto) -> str:
    """The tensor of the logits, of which the output is softmax or argmax, or which it is."""
    producers = {name: node for node in model.graph.node for name in node.output}
    tensor = model.graph.output[0].name
    while tensor in producers and tensor != "logits":
        node = producers[tensor]
        tensor = node.input[0]
        if node.op_type in ("ArgMax", "Softmax"):
            return tensor
    return model.graph.output[0].name


def write_logits_model(source: Path, target: Path) -> None:
    """Writes the network of an exported .onnx file so that its output is the logits N,K,H,W, whatever that file gives.

    Raises UserError where a file has none, since it gives class ids that were not made from any.
    """
    model = onnx.load(source)
    tensor = logits_of(model)
    if model.graph.output[0].name in ("argmax", "softmax") and tensor == model.graph.output[0].name:
        raise UserError(f"{source}: holds no logits; export with export.output=logits")
    if tensor != model.graph.output[0].name:
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    needed, kept = {tensor}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    onnx.save(model, target)


def simplify(model: ModelProto, output_name: str) -> None:
    """Cleans `model`, which has one output, in place; the output is named `output_name`.

    A graph with If or Loop is only renamed: their bodies read tensors that no node lists as its input.
    """
    _rename_output(model.graph, output_name)
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return
    _constants_to_initializers(model.graph)
    _drop_identities(model.graph)
    _fuse_bias(model.graph)
    fold(model)


def clean(model: ModelProto) -> None:
    """As `simplify`, of a graph that others exported: outputs keep their names, and sizes that are computed stay so."""
    _constants_to_initializers(model.graph)
    _drop_identities(model.graph)
    while _fold_constants(model):
        pass
    _fuse_bias(model.graph, of_constants=True)
    drop_unused(model.graph)


def fold(model: ModelProto) -> None:
    """Computes in place every tensor that the constants and fixed sizes of `model` decide, and notes all shapes."""
    forget_shapes(model.graph)
    shapes = infer_shapes(model)
    while _fold_shapes(model.graph, shapes) or _fold_constants(model):
        shapes = infer_shapes(model)
    drop_unused(model.graph)
    outputs = [shapes.get(output.name, output) for output in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    made = {name for node in model.graph.node for name in node.output} - {output.name for output in outputs}
    model.graph.value_info.extend(shapes[name] for name in sorted(made & set(shapes)))


def halve_weights(model: ModelProto) -> None:
    """Stores float weights, initializers of two dimensions or more, in float16, each with a Cast to float32 behind it,
    in place: engines fold that when they load the file, and compute as before. Weights that overflow stay as they are.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        halved = numpy_helper.to_array(tensor).clip(-LARGEST_HALF, LARGEST_HALF).astype(np.float16)
        if np.abs(numpy_helper.to_array(tensor)).max(initial=0) > LARGEST_HALF:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}:float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    rest = [NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])


def infer_shapes(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Type and shape of every tensor but the initializers, as far as onnx finds them.

    The weights are left out of what onnx serializes and parses: of a large initializer only the shape matters here.
    """
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "shapes"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= LARGEST_SHAPE:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    found = [*inferred.value_info, *inferred.output, *model.graph.input]
    return {info.name: info for info in found if info.type.tensor_type.HasField("shape")}


def _constants_to_initializers(graph: GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Constant":
            (given,) = node.attribute
            value = given.t if given.HasField("t") else numpy_helper.from_array(_number(given))
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
    _delete(graph.node, lambda node: node.op_type == "Constant")


def _number(given: onnx.AttributeProto) -> np.ndarray:
    """What a Constant has as a number or a list of them."""
    value = helper.get_attribute_value(given)
    return np.array(value, np.float32 if given.name.startswith("value_float") else np.int64)


def _drop_identities(graph: GraphProto) -> None:
    outputs = {output.name for output in graph.output}
    sources: dict[str, str] = {}

    def is_identity(node: NodeProto) -> bool:
        return node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs

    for node in graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
        if is_identity(node):
            sources[node.output[0]] = node.input[0]
    _delete(graph.node, is_identity)


def _fuse_bias(graph: GraphProto, of_constants: bool = False) -> None:
    """Conv -> Add(Reshape(bias)), as paddle2onnx 2.x writes it, becomes Conv with that bias; so does Conv -> Add of a
    constant C,1,1, which gets another name: of Paddle's parameters those are found again by name.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    producers = _producers(graph)
    uses = Counter(name for node in graph.node for name in node.input)
    fused = set()
    for add in graph.node:
        convolution = next((producers[name] for name in add.input if name in producers), None)
        if add.op_type != "Add" or convolution is None or convolution.op_type not in ("Conv", "ConvTranspose"):
            continue
        (other,) = [name for name in add.input if name != convolution.output[0]] or [""]
        bias = _bias(other, initializers, producers, of_constants)
        if bias is None or len(convolution.input) != 2 or uses[convolution.output[0]] != 1:
            continue
        weight = initializers.get(convolution.input[1])
        if weight is None or (bias.dims[0] != weight.dims[0] and convolution.op_type == "Conv"):
            continue
        if bias.name not in initializers:
            initializers[bias.name] = bias
            graph.initializer.append(bias)
        convolution.input.append(bias.name)
        convolution.output[0] = add.output[0]
        fused.add(add.output[0])
    _delete(graph.node, lambda node: node.op_type == "Add" and node.output[0] in fused)


def _bias(
    name: str, initializers: Mapping[str, TensorProto], producers: Mapping[str, NodeProto], of_constants: bool
) -> TensorProto | None:
    """The C numbers that a tensor of C,1,1 or 1,C,1,1 is made of; None of any other."""
    reshape = producers.get(name)
    if reshape is not None and reshape.op_type == "Reshape":
        source = initializers.get(reshape.input[0])
        return source if source is not None and len(source.dims) == 1 else None
    tensor = initializers.get(name) if of_constants else None
    if tensor is None or len(tensor.dims) < 3 or math.prod(tensor.dims) != tensor.dims[-3]:
        return None
    return numpy_helper.from_array(numpy_helper.to_array(tensor).ravel(), f"{name}:bias")


def forget_shapes(graph: GraphProto) -> None:
    """Drops the converter's own shapes: its names for dynamic sizes would win over what inference finds."""
    del graph.value_info[:]
    for output in graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()


def _rename_output(graph: GraphProto, name: str) -> None:
    """Names the only output, which may be an Identity of a tensor that other nodes read as well."""
    (output,) = graph.output
    producers = _producers(graph)
    last = producers[output.name]
    identity = last.op_type == "Identity" and last.input[0] in producers
    old = last.input[0] if identity else output.name
    if identity:
        _delete(graph.node, lambda node: old in node.input and node.output[0] == output.name)
    for node in graph.node:
        node.input[:] = [name if tensor == old else tensor for tensor in node.input]
        node.output[:] = [name if tensor == old else tensor for tensor in node.output]
    output.name = name


def _fold_shapes(graph: GraphProto, shapes: Mapping[str, ValueInfoProto]) -> bool:
    """Replaces each Shape of a tensor of known size by a constant; true if there was one."""
    folded = set()
    for node in graph.node:
        if node.op_type != "Shape" or node.input[0] not in shapes:
            continue
        dimensions = shapes[node.input[0]].type.tensor_type.shape.dim
        if all(dimension.HasField("dim_value") for dimension in dimensions):
            size = [dimension.dim_value for dimension in dimensions]
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            part = np.array(size[bounds.get("start", 0) : bounds.get("end", len(size))], dtype=np.int64)
            graph.initializer.append(numpy_helper.from_array(part, node.output[0]))
            folded.add(node.output[0])
    _delete(graph.node, lambda node: node.output[0] in folded)
    return bool(folded)


def _fold_constants(model: ModelProto) -> bool:
    """Replaces what depends on constants alone by its value, computed by ONNX Runtime; true if there was something."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    folded: list[NodeProto] = []
    used = {output.name for output in graph.output}
    for node in graph.node:
        if node.input and known.issuperset(filter(None, node.input)):
            folded.append(node)
            known.update(node.output)
        else:
            used.update(node.input)
    made = {name for node in folded for name in node.output}
    wanted = sorted(made & used)
    graph.initializer.extend(_values(model, folded, wanted) if wanted else [])
    _delete(graph.node, lambda node: node.output[0] in made)
    return bool(folded)


def _values(model: ModelProto, nodes: list[NodeProto], wanted: list[str]) -> list[TensorProto]:
    """The tensors `wanted`, computed by `nodes` from the initializers of `model`."""
    inputs = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    outputs = [ValueInfoProto(name=name) for name in wanted]
    part = helper.make_model(
        helper.make_graph(nodes, "constants", [], outputs, constants),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    session = session_of(part, 1, optimized=False)
    return [numpy_helper.from_array(value, name) for name, value in zip(wanted, session.run(wanted, {}), strict=True)]


def drop_unused(graph: GraphProto) -> None:
    used = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            used.update(node.input)
    _delete(graph.node, lambda node: used.isdisjoint(node.output))
    _delete(graph.initializer, lambda tensor: tensor.name not in used)


def _delete(messages: Any, unwanted: Callable[[Any], bool]) -> None:
    """Deletes by position; the `remove` of a repeated field would compare weights."""
    for position in reversed(range(len(messages))):
        if unwanted(messages[position]):
            del messages[position]


def _producers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}
