"""A cleaned graph computes the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from segslim.deployment.conversion import convert, save_inference_model
from segslim.deployment.onnx_graph import simplify
from tests.deployment.networks import TinyNetwork, random_images


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    folder = tmp_path_factory.mktemp("converted")
    model_file, params_file = save_inference_model(TinyNetwork(), folder, (1, 3, 20, 28), "logits")
    convert(model_file, params_file, folder / "raw.onnx", "TinyNetwork")
    return onnx.load(folder / "raw.onnx")


def clean(model: ModelProto) -> ModelProto:
    copy = ModelProto.FromString(model.SerializeToString())
    simplify(copy, "logits")
    return copy


def run(model: ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


def test_clean_graph_computes_the_same(converted: ModelProto) -> None:
    images = random_images(1, 3, 20, 28)
    assert np.allclose(run(clean(converted), images), run(converted, images), atol=1e-6)


def test_only_what_computes_is_left(converted: ModelProto) -> None:
    model = clean(converted)
    onnx.checker.check_model(model, full_check=True)
    computing = {"Conv", "BatchNormalization", "Transpose", "MatMul", "Resize", "Concat"}
    assert {node.op_type for node in model.graph.node} == computing
    used = {name for node in model.graph.node for name in node.input}
    assert used >= {tensor.name for tensor in model.graph.initializer}


def test_every_tensor_of_fixed_size_has_its_shape(converted: ModelProto) -> None:
    graph = clean(converted).graph
    made = {name for node in graph.node for name in node.output}
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in [*graph.value_info, *graph.output]
    }
    assert set(shapes) == made
    assert all(all(shape) for shape in shapes.values())
    assert shapes["logits"] == [1, 3, 20, 28]


def test_cleaning_twice_changes_nothing(converted: ModelProto) -> None:
    once = clean(converted)
    assert clean(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
