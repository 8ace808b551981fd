"""An exported graph where a network is asked for: its weights, what is cut from them, and what it computes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from segslim.errors import UserError
from segslim.exported.engine_graph import engine_graph
from segslim.exported.file import read_graph
from segslim.exported.meaning import Reader
from segslim.onnx_tools import attribute, copied, inputs_of, session_of

#: Operators that hold integers in place of weights, or compute in them.
QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("ConvInteger", "MatMulInteger", "MatMulNBits"),
)
#: Inputs of these are numbers to compute with, not weights.
SETTINGS = {"Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (2,), "Dropout": (1, 2), "Range": (0, 1, 2)}


class ExportedNetwork:
    """An ONNX graph in place of a network's code.

    Args:
        file: an .onnx file, or a graph that was read already.
        num_classes: of the data.
        order: of the channels of an image: rgb or bgr.
        layout: of images and output: NCHW or NHWC; auto: as the shape of the input says.
        output: the name of the output, where there are several.
        kind: what that holds: logits, softmax, sigmoid or labels; auto: as the operator says that makes it.
        threshold: a pixel where no class has this probability is background; where background has no channel.
        classes: the class of the data of each of its channels (-1: none), in order, with names or without; None:
            channel k is class k, or k + 1 where background has no channel.

    Raises UserError, in one line, for what is no ONNX file or cannot be read as a network of one image: with control
    flow, operators of others, several inputs, an opset below 11, weights in files that are not beside it, or an output
    of which it is not known which class is where.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | ModelProto,
        num_classes: int,
        order: str = "rgb",
        layout: str = "auto",
        output: str | None = None,
        kind: str = "auto",
        threshold: float = 0.5,
        classes: Sequence[int] | Mapping[str, int] | None = None,
    ) -> None:
        self.model = file if isinstance(file, ModelProto) else read_graph(Path(file))
        self.num_classes = num_classes
        self.where = "the graph" if isinstance(file, ModelProto) else f"model.file={file}"
        mapping = list(classes.values() if isinstance(classes, Mapping) else classes or ()) or None
        self.reading = Reader(self.model, num_classes, self.where).read(order, layout, output, kind, threshold, mapping)

    @property
    def image_channels(self) -> int:
        return self.reading.channels

    @property
    def input_size(self) -> tuple[int | None, int | None]:
        """(width, height) that the graph takes, None for any."""
        sides = [side.dim_value or None for side in inputs_of(self.model.graph)[0].type.tensor_type.shape.dim]
        height, width = sides[1:3] if self.reading.channels_last else sides[2:]
        return width, height

    @property
    def quantized(self) -> str | None:
        """An operator by which it is quantized already."""
        return next((node.op_type for node in self.model.graph.node if node.op_type in QUANTIZED), None)

    @property
    def normalizes(self) -> bool:
        """Whether the graph itself shifts or scales its image before anything else, so that it wants plain numbers."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        tensor = self.reading.image
        while True:
            readers = [node for node in self.model.graph.node if tensor in node.input]
            if len(readers) != 1 or readers[0].op_type not in ("Cast", "Transpose", "Gather"):
                break
            tensor = readers[0].output[0]
        return bool(readers) and all(
            node.op_type in ("Sub", "Add", "Mul", "Div") and constants.intersection(node.input) for node in readers
        )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError where it does not take images of this size, (width, height), or computes nothing of them."""
        fixed = self.input_size
        if any(own not in (None, given) for own, given in zip(fixed, size, strict=True)):
            raise UserError(
                f"dataset.size=[{size[0]},{size[1]}]: {self.where} takes images of {fixed[0]} x {fixed[1]};"
                f" give dataset.size=[{fixed[0] or size[0]},{fixed[1] or size[1]}]"
            )
        try:
            shape = self.logits(np.zeros((1, self.image_channels, size[1], size[0]), np.float32)).shape
        except UserError:
            raise
        except Exception as error:  # onnxruntime has a kind of its own for everything, with no base but this
            reason = " ".join(str(error).split())[-160:]
            raise UserError(f"{self.where}: ONNX Runtime does not run it at {size[0]} x {size[1]} ({reason})") from None
        if len(shape) != 4 or shape[1] != self.num_classes:
            raise UserError(f"{self.where}: gives {shape}, not a plane for each of {self.num_classes} classes")

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights, by the names of their initializers; without the numbers that operators are set by."""
        settings = _settings(self.model.graph)
        return {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in self.model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in settings
        }

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replaces initializers, in place."""
        with_weights(self.model, weights)

    def without_weights(self) -> ModelProto:
        """The graph alone; `with_weights` gives them back."""
        copy, weights = copied(self.model), self.state_dict().keys()
        for tensor in copy.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
        return copy

    def prune(self, kept: Mapping[str, Mapping[int, Sequence[int]]], sizes: Mapping[str, Mapping[str, int]]) -> None:
        """Cuts initializers, in place, and sets what counts their channels.

        Args:
            kept: for each initializer and axis, the indices that stay.
            sizes: {initializer: {position: number}}, of shapes. Groups of depthwise convolutions follow their weights.
        """
        graph = self.model.graph
        depthwise = {
            node.input[1]: node for node in graph.node if node.op_type == "Conv" and attribute(node, "group", 1) > 1
        }
        for tensor in graph.initializer:
            if tensor.name not in kept and tensor.name not in sizes:
                continue
            value = numpy_helper.to_array(tensor)
            pruned = value.copy()
            for axis, indices in kept.get(tensor.name, {}).items():
                pruned = pruned.take(indices, axis)
            for position, size in sizes.get(tensor.name, {}).items():
                pruned.flat[int(position)] = size
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(pruned), tensor.name))
            if tensor.name in depthwise and value.shape[1] == 1:
                (group,) = [given for given in depthwise[tensor.name].attribute if given.name == "group"]
                group.i = group.i * len(pruned) // len(value)
        del graph.value_info[:]  # shapes of the network before it

    def graph(self, input_shape: Sequence[int | None], output: str) -> ModelProto:
        """What the engines run: images N,C,H,W float32 to class ids N,H,W int32 ("argmax"), or to N,K,H,W float32
        ("logits", "softmax"); its only output has that name. `input_shape` has None for what is to stay dynamic.

        Raises UserError where a size is to be dynamic that the graph fixes.
        """
        if None in input_shape[2:] and self.input_size != (None, None):
            width, height = self.input_size
            raise UserError(
                f"export.size=dynamic: {self.where} takes images of {width} x {height} alone; give a fixed size"
            )
        return engine_graph(self.model, self.reading, self.num_classes, input_shape, output)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """N,K,H,W of images N,C,H,W, each node computed by itself."""
        session = session_of(self.graph(image.shape, "logits"), 0, optimized=False)
        result: np.ndarray = session.run(None, {session.get_inputs()[0].name: image})[0]
        return result


def with_weights(model: ModelProto, weights: Mapping[str, np.ndarray]) -> ModelProto:
    """Replaces the initializers of these names, in place. Returns the model."""
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return model


def _settings(graph: GraphProto) -> set[str]:
    """The initializers by which operators are set."""
    return {
        node.input[at]
        for node in graph.node
        for at in SETTINGS.get(node.op_type, ())
        if at < len(node.input) and node.input[at]
    }
