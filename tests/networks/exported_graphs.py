"""Small ONNX graphs, written by hand in onnx's text form, with weights drawn from a seed."""

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

Constants = dict[str, tuple[int, ...] | list[int] | float]


def graph(body: str, constants: Constants, shape: str = "1,3,8,8", opset: int = 17) -> ModelProto:
    """A model of the lines `body`, from the image x to y. Constants of a shape are drawn (variances above 0), a list
    stands for these numbers.
    """
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[{shape}] x) => (float[n,k,h,w] y) {{ {body} }}'
    model = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, given in constants.items():
        if isinstance(given, tuple):
            value = random.standard_normal(given).astype(np.float32)
            value = np.abs(value) + 0.5 if name.startswith("var") else value
        else:
            value = np.array(given, np.int64 if isinstance(given, list) else np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def between(operators: str, channels: int = 8, more: Constants | None = None) -> ModelProto:
    """Operators from a to b between two convolutions, of which the second reads `channels`."""
    constants: Constants = {"w1": (8, 3, 1, 1), "b1": (8,), "w2": (4, channels, 1, 1), **(more or {})}
    return graph(f"a = Conv(x, w1, b1) {operators} y = Conv(b, w2)", constants)


def in_double(model: ModelProto, image: np.ndarray) -> np.ndarray:
    """What the graph gives, computed in double precision by onnx's reference evaluator."""
    double = ModelProto.FromString(model.SerializeToString())
    for tensor in double.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for given in (given for node in double.graph.node for given in node.attribute):
        if given.name == "to" and given.i == onnx.TensorProto.FLOAT:
            given.i = onnx.TensorProto.DOUBLE
    result: Any = ReferenceEvaluator(double).run(None, {double.graph.input[0].name: image.astype(np.float64)})[0]
    return np.asarray(result)
