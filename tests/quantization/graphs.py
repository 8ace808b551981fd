"""A small segmentation network as paddle2onnx writes one: batch norm, a residual, pooling, resizing, concat."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segslim.quantization.graph import folded_copy
from segslim.quantization.placement import place_integers
from segslim.quantization.spec import Range

SIZE = (1, 3, 32, 48)
CLASSES = 4


@dataclass
class Builder:
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, inputs: list[str], output: str, **options: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], f"{output}.node", **options))
        return output

    def convolution(self, name: str, tensor: str, channels: tuple[int, int], kernel: int = 3, **options: object) -> str:
        """Convolution, batch norm and rectifier; the output is `name`."""
        inputs, outputs = channels
        options = {"pads": [kernel // 2] * 4, **options}
        weight = self.random.normal(0, 0.3, (outputs, inputs // options.get("group", 1), kernel, kernel))
        self.node("Conv", [tensor, self.constant(f"{name}.w", weight.astype(np.float32))], f"{name}.conv", **options)
        norm = [self.random.uniform(0.5, 2, outputs) for _ in range(4)]
        parts = [self.constant(f"{name}.bn{i}", a.astype(np.float32)) for i, a in enumerate(norm)]
        self.node("BatchNormalization", [f"{name}.conv", *parts], f"{name}.norm", epsilon=1e-5)
        return self.node("Relu", [f"{name}.norm"], name)

    def model(self, output: str, shape: tuple[int, ...] | None = None, element: int = TensorProto.INT32) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SIZE)],
            [helper.make_tensor_value_info(output, element, shape)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def segmentation_network() -> ModelProto:
    b = Builder()
    stem = b.convolution("stem", "x", (3, 16), strides=[2, 2])
    depthwise = b.convolution("depthwise", stem, (16, 16), group=16)
    b.node("Add", [stem, depthwise], "sum")
    residual = b.node("Relu", ["sum"], "residual")
    pooled = b.node("MaxPool", [residual], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    deep = b.convolution("deep", pooled, (16, 16))
    gate = b.node("Sigmoid", [b.convolution("gate", pooled, (16, 16), 1)], "gate.sigmoid")
    gated = b.node("Mul", [deep, gate], "gated")
    scales = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    upper = b.node("Resize", [gated, "", scales], "upper", mode="linear", coordinate_transformation_mode="half_pixel")
    joined = b.node("Concat", [upper, residual], "joined", axis=1)
    head = b.convolution("head", joined, (32, 16))
    weight = b.constant("logits.w", b.random.normal(0, 0.3, (CLASSES, 16, 1, 1)).astype(np.float32))
    logits = b.node("Conv", [head, weight], "logits")
    large = b.node("Resize", [logits, "", scales], "large", mode="linear", coordinate_transformation_mode="half_pixel")
    classes = b.node("ArgMax", [large], "classes", axis=1, keepdims=0)
    return b.model(b.node("Cast", [classes], "argmax", to=TensorProto.INT32), (1, *SIZE[2:]))


def image(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SIZE, np.float32)


def run(model: ModelProto, *outputs: str, seed: int = 1) -> list[np.ndarray]:
    """The tensors `outputs` of a model (its own output where none is named) for one random image."""
    copy = ModelProto.FromString(model.SerializeToString())
    known = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in known)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs) or None, {"x": image(seed)})


def measured_ranges(model: ModelProto) -> dict[str, Range]:
    folded = folded_copy(model)
    names = [tensor for tensor in place_integers(folded).groups if tensor != "x"]
    arrays = zip([*names, "x"], [*run(folded, *names), image()], strict=True)
    return {name: (float(array.min()), float(array.max())) for name, array in arrays}
