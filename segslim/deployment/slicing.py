"""Cuts channels out of an ONNX file, so that the file of a pruned network is there without another export."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from segslim.deployment.simplify import forget_shapes, infer_shapes


def slice_onnx(
    source: Path, target: Path, kept: Mapping[str, Mapping[int, Sequence[int]]], groups: Mapping[str, int]
) -> None:
    """Writes to `target` the float ONNX file `source` with the positions `kept` of each initializer, by axis.

    groups: for the weights of depthwise convolutions, the new number of groups. Sizes of resized feature maps follow
    their channels. Where a file has other numbers that would have to follow (a reshape's), what is written is wrong:
    compare it once with an export of the pruned network.
    """
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name in kept:
            _cut(tensor, kept[tensor.name])
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in groups:
            next(attribute for attribute in node.attribute if attribute.name == "group").i = groups[node.input[1]]
    forget_shapes(model.graph)
    while _resizes_follow(model):  # one resized map at a time: a later one may be made of an earlier
        pass
    onnx.save(model, target)


def _cut(tensor: TensorProto, axes: Mapping[int, Sequence[int]]) -> None:
    value = numpy_helper.to_array(tensor)
    for axis, indices in axes.items():
        value = value.take(indices, axis)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _resizes_follow(model: ModelProto) -> bool:
    """Gives each Resize with a written size as many channels as it reads, as far as they are known; true if one had
    another number.
    """
    written = {tensor.name: tensor for tensor in model.graph.initializer}
    resizes = [node for node in model.graph.node if node.op_type == "Resize" and _sizes(node) in written]
    shapes = infer_shapes(model) if resizes else {}
    changed = False
    for node in resizes:
        sizes = numpy_helper.to_array(written[_sizes(node)]).copy()
        channels = shapes[node.input[0]].type.tensor_type.shape.dim[1].dim_value if node.input[0] in shapes else 0
        if channels not in (0, sizes[1]):
            sizes[1] = channels
            own = f"{node.output[0]}.sizes"  # two Resizes may share what was written
            node.input[3] = own
            model.graph.initializer.append(numpy_helper.from_array(sizes, own))
            changed = True
    used = {name for node in model.graph.node for name in node.input}
    left = list({t.name: t for t in model.graph.initializer if t.name in used}.values())  # the last of a name
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    return changed


def _sizes(node: NodeProto) -> str:
    return node.input[3] if len(node.input) > 3 else ""
