"""A cleaned graph computes the same."""

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from segslim.deployment.conversion import convert, save_inference_model
from segslim.onnx_graph import simplify
from tests.deployment.networks import TinyNetwork, random_images


def run(model: ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


def test_a_clean_graph_computes_the_same_by_what_computes_alone_and_every_tensor_has_its_shape(tmp_path):
    files = save_inference_model(TinyNetwork(), tmp_path, (1, 3, 20, 28), "logits")
    convert(*files, tmp_path / "raw.onnx", "TinyNetwork")
    raw, model = (onnx.load(tmp_path / "raw.onnx") for _ in range(2))
    simplify(model, "logits")
    images = random_images(1, 3, 20, 28)
    assert np.allclose(run(model, images), run(raw, images), atol=1e-6)

    onnx.checker.check_model(model, full_check=True)
    computing = {"Conv", "BatchNormalization", "Transpose", "MatMul", "Resize", "Concat"}
    assert {node.op_type for node in model.graph.node} == computing
    assert {name for node in model.graph.node for name in node.input} >= {t.name for t in model.graph.initializer}

    infos = [*model.graph.value_info, *model.graph.output]
    shapes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in infos}
    assert set(shapes) == {name for node in model.graph.node for name in node.output}
    assert all(all(shape) for shape in shapes.values()) and shapes["logits"] == [1, 3, 20, 28]

    again = ModelProto.FromString(model.SerializeToString())
    simplify(again, "logits")
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
