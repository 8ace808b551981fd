"""A small deployment for the engines, made by Paddle and by onnx alone."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (40, 24)  # width, height
CLASSES = 3


def random_images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, SIZE[1], SIZE[0]), dtype=np.float32)


def write_onnx(file: Path, output: str = "logits", scale: float = 1.0) -> None:
    """Three 5 x 5 convolutions; `scale` multiplies the last weight."""
    random = np.random.default_rng(1)
    channels = (3, 32, 32, CLASSES)
    initializers, nodes, tensor = [], [], "x"
    for layer in range(3):
        weight = random.standard_normal((channels[layer + 1], channels[layer], 5, 5), dtype=np.float32) * 0.1
        weight *= scale if layer == 2 else 1
        initializers.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{layer}"], [f"t{layer}"], pads=[2, 2, 2, 2]))
        tensor = f"t{layer}"
    if output == "argmax":
        nodes.append(helper.make_node("ArgMax", [tensor], ["long"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["long"], ["y"], to=TensorProto.INT32))
        result = helper.make_tensor_value_info("y", TensorProto.INT32, [1, SIZE[1], SIZE[0]])
    else:
        nodes[-1].output[0] = "y"
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES, SIZE[1], SIZE[0]])
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE[1], SIZE[0]])
    graph = helper.make_graph(nodes, "network", [image], [result], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
