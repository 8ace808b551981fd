"""photo.onnx: a photo in, its mask out. Resize and normalization are in the graph, before the network, and what brings
class ids to the photo's size behind it.

Input `image` is uint8 H,W,C of any size, 0 to 255, red first (or blue first, as OpenCV reads it). Output is `mask`,
uint8 H,W of class ids, of a deployment whose output is "argmax"; else what the network gives, at the network's size.

All is computed as `segslim.predict` does it, to the bit in ONNX Runtime: bilinear as OpenCV 5 does it on processors
with fused multiply-add, which is here a product and a sum in float64, rounded once; means as NumPy takes them off, in
float64; and the nearest pixel in integers. Photos that are enlarged more than eight times may differ in the last bit,
and so may engines that compute float64 in float32.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segslim.errors import UserError

INPUT, MASK = "image", "mask"
FLOAT, DOUBLE, INT64, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT8


def check_transforms(transforms: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError for a transform that photo.onnx cannot do: any but a plain bilinear Resize, and Normalize behind
    it.
    """
    kinds = [node["type"] for node in transforms]
    if "Normalize" in kinds and "Resize" in kinds[kinds.index("Normalize") :]:
        raise UserError("export.preprocess: dataset.val_transforms has Resize behind Normalize: put it before")
    for node in transforms:
        options = {key: value for key, value in node.items() if value not in (None, False)}
        kind = options.pop("type")
        plain = set(options) <= {"target_size", "interp"} and options.get("interp", "LINEAR") == "LINEAR"
        if kind != "Normalize" and not (kind == "Resize" and plain):
            words = ", ".join([str(kind), *(f"{key}={value}" for key, value in options.items())])
            raise UserError(
                f"export.preprocess: {words} of dataset.val_transforms cannot be in the graph; a Resize to"
                " dataset.size and Normalize can be: leave export.preprocess away"
            )


def write_photo(
    onnx_file: Path,
    photo_file: Path,
    transforms: Sequence[Mapping[str, Any]],
    channels: int,
    order: Literal["rgb", "bgr"],
) -> None:
    """Writes `photo_file` around the network of `onnx_file`.

    Args:
        onnx_file: a deployment's, its input N,C,H,W float32, its output class ids, probabilities or logits.
        transforms: what an image goes through before it, as in deploy.yaml; see check_transforms.
        channels: of an image.
        order: of a photo's channels; the network's is rgb.
    """
    model = onnx.load(onnx_file)
    graph = model.graph
    network_input, output = graph.input[0], graph.output[0]
    parts = _Parts()
    shape = parts.node("Shape", INPUT)
    tensor = INPUT
    for node in transforms:
        if node["type"] == "Resize":
            tensor = parts.bilinear(tensor, *(node.get("target_size") or (512, 512)))
    if order == "bgr":  # behind Resize there are fewer pixels, and means are those of red first
        tensor = parts.node("Gather", tensor, parts.constant(np.array([2, 1, 0])), axis=2)
    for node in transforms:
        if node["type"] == "Normalize":
            mean, std = (np.array(node.get(key, 0.5), np.float64) for key in ("mean", "std"))
            tensor = parts.node("Div", parts.cast(tensor, FLOAT), parts.constant(np.float32(255)))
            for operator, value in (("Sub", mean), ("Div", std)):
                tensor = parts.cast(parts.node(operator, parts.cast(tensor, DOUBLE), parts.constant(value)), FLOAT)
    tensor = parts.node("Transpose", parts.cast(tensor, FLOAT), perm=[2, 0, 1])
    parts.node("Unsqueeze", tensor, parts.constant(np.array([0])), into=network_input.name)
    before = len(parts.nodes)
    if output.type.tensor_type.elem_type == TensorProto.INT32:  # class ids 1,H,W
        ids = parts.node("Squeeze", parts.cast(output.name, UINT8), parts.constant(np.array([0])))
        given = parts.node("Shape", network_input.name)
        for size, first in ((given, 2), (shape, 0)):  # as predict: to the input's size, and from there to the photo's
            ids = parts.nearest(ids, size, first)
        parts.node("Identity", ids, into=MASK)
        result = helper.make_tensor_value_info(MASK, UINT8, ["height", "width"])
    else:
        result = output
    nodes = [*parts.nodes[:before], *graph.node, *parts.nodes[before:]]
    image = helper.make_tensor_value_info(INPUT, UINT8, ["height", "width", channels])
    tensors = [*graph.initializer, *parts.constants]
    whole = helper.make_graph(nodes, graph.name, [image], [result], tensors, value_info=[network_input])
    made = helper.make_model(whole, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.save(made, photo_file)


class _Parts:
    """Nodes and constants, as they are added; tensors are numbered."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        output = into or f"photo.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"photo/{output}", **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"photo.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, tensor: str, kind: int) -> str:
        return self.node("Cast", tensor, to=kind)

    def dimension(self, shape: str, axis: int) -> str:
        """A size of a Shape's output, int64 without dimensions."""
        return self.node("Gather", shape, self.constant(np.int64(axis)), axis=0)

    def count(self, number: str, kind: type) -> str:
        """0, 1, ... to below `number`."""
        return self.node("Range", self.constant(kind(0)), number, self.constant(kind(1)))

    def bilinear(self, image: str, width: int, height: int) -> str:
        """H,W,C of any type to height,width,C float32: along rows first, as OpenCV does."""
        shape = self.node("Shape", image)
        top_row, bottom_row, down = self._between(self.dimension(shape, 0), height)
        left, right, across = self._between(self.dimension(shape, 1), width)
        down = self.node("Unsqueeze", down, self.constant(np.array([1, 2])))
        across = self.node("Unsqueeze", across, self.constant(np.array([1])))
        top, bottom = (
            self._weighted(
                self.cast(self.node("Gather", pixels, left, axis=1), FLOAT),
                self.cast(self.node("Gather", pixels, right, axis=1), FLOAT),
                across,
            )
            for pixels in (self.node("Gather", image, row, axis=0) for row in (top_row, bottom_row))
        )
        return self._weighted(top, bottom, down)

    def _between(self, size: str, target: int) -> tuple[str, str, str]:
        """Of each of `target` pixels the two of `size` that its centre lies between, and how far it is from the first,
        rounded to float32, in float64.
        """
        half, number = self.constant(0.5), self.constant(float(target))
        scale = self.node("Div", self.cast(size, DOUBLE), number)
        centre = self.node("Add", self.count(number, float), half)
        place = self.node("Sub", self.node("Mul", centre, scale), half)
        below = self.node("Floor", place)
        share = self.cast(self.cast(self.node("Sub", place, below), FLOAT), DOUBLE)
        first = self.cast(below, INT64)
        last = self.node("Sub", size, self.constant(np.int64(1)))
        second = self.node("Add", first, self.constant(np.int64(1)))
        zero = self.constant(np.int64(0))
        first, second = (self.node("Min", self.node("Max", at, zero), last) for at in (first, second))
        return first, second, share

    def _weighted(self, first: str, second: str, share: str) -> str:
        """first + (second - first) * share: the difference in float32, product and sum rounded once."""
        difference = self.cast(self.node("Sub", second, first), DOUBLE)
        product = self.node("Mul", difference, share)
        return self.cast(self.node("Add", product, self.cast(first, DOUBLE)), FLOAT)

    def nearest(self, ids: str, shape: str, first: int) -> str:
        """H,W to the size that `shape` has at `first` and behind it; see evaluation.metrics.resize_nearest."""
        two, one, now = self.constant(np.int64(2)), self.constant(np.int64(1)), self.node("Shape", ids)
        for axis in (0, 1):
            target = self.dimension(shape, first + axis)
            odd = self.node("Add", self.node("Mul", self.count(target, np.int64), two), one)
            scaled = self.node("Mul", odd, self.dimension(now, axis))
            ids = self.node("Gather", ids, self.node("Div", scaled, self.node("Mul", target, two)), axis=axis)
        return ids
