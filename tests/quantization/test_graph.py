import numpy as np
from onnx import TensorProto

from segslim.quantization.graph import fold_batch_norm
from tests.quantization.graphs import Builder, run, segmentation_network


def test_folding_leaves_the_output_and_no_batch_norm():
    model = segmentation_network()
    (expected,) = run(model, "logits")
    fold_batch_norm(model)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run(model, "logits")[0], expected, atol=1e-4 * np.abs(expected).max())


def test_a_batch_norm_whose_convolution_is_read_by_others_stays():
    b = Builder()
    b.convolution("stem", "x", (3, 4))
    b.node("Add", ["stem", "stem.conv"], "y")
    model = b.model("y", element=TensorProto.FLOAT)
    fold_batch_norm(model)
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}


def test_a_transposed_convolution_is_folded_along_its_output_channels():
    b = Builder()
    weight = b.constant("w", b.random.normal(size=(3, 5, 2, 2)).astype(np.float32))
    b.node("ConvTranspose", ["x", weight], "t", kernel_shape=[2, 2], strides=[2, 2])
    parts = [b.constant(f"n{i}", b.random.uniform(0.5, 2, 5).astype(np.float32)) for i in range(4)]
    b.node("BatchNormalization", ["t", *parts], "y")
    model = b.model("y", element=TensorProto.FLOAT)
    (expected,) = run(model)
    fold_batch_norm(model)
    assert [node.op_type for node in model.graph.node] == ["ConvTranspose"]
    np.testing.assert_allclose(run(model)[0], expected, atol=1e-4)
