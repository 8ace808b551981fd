import collections

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper

from segslim.errors import UserError
from segslim.onnx_tools import session_of
from segslim.quantization.qdq import Scale, quantize, to_int8, weight_scales
from segslim.quantization.spec import QuantizationSpec
from tests.networks.exported_graphs import graph
from tests.quantization.graphs import Builder, measured_ranges, run, segmentation_network


@pytest.fixture(scope="module", params=["uint8", "int8"])
def quantized(request):
    model = segmentation_network()
    quantize(model, QuantizationSpec(measured_ranges(model), activation_type=request.param))
    return model


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def precisions(model, precision="f32"):
    """What OpenVINO computes in: {(layer type, input precision)}."""
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    found = collections.defaultdict(set)
    for node in compiled.get_runtime_model().get_ordered_ops():
        information = node.get_rt_info()
        kernel = information["primitiveType"].astype(str)
        found[information["layerType"].astype(str)].add(kernel.lower().rpartition("_")[2])
    return found


def test_the_graph_is_valid_onnx(quantized):
    onnx.checker.check_model(quantized, full_check=True)


def test_the_output_is_close_to_the_float_networks(quantized):
    (expected,), (actual,) = run(segmentation_network(), "logits"), run(quantized, "logits")
    assert np.abs(actual - expected).max() < 0.06 * np.abs(expected).max()
    assert (run(quantized)[0] == run(segmentation_network())[0]).mean() > 0.95


def test_every_convolution_reaches_openvinos_integer_kernels(quantized):
    kernels = precisions(quantized)
    assert kernels["Convolution"] == {"i8"}
    assert kernels["Concatenation"] == {"i8"} and kernels["Pooling"] == {"i8"}


def test_convolutions_reach_onnx_runtimes_integer_kernels(tmp_path):
    model = segmentation_network()
    quantize(model, QuantizationSpec(measured_ranges(model)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 6 and kinds["QLinearAdd"] == kinds["QLinearConcat"] == kinds["QLinearMul"] == 1
    assert kinds["Conv"] + kinds["FusedConv"] == 0  # the one that ends in a sigmoid and the logits are int8 too


def test_int8_for_tensorrt_is_symmetric_everywhere():
    model = segmentation_network()
    quantize(model, QuantizationSpec(measured_ranges(model), activation_type="int8"))
    zeros = [array for name, array in constants(model).items() if name.endswith(".zero")]
    assert zeros and all(array.dtype == np.int8 and not array.any() for array in zeros)


def test_concat_shares_one_scale_and_interpolation_does_not():
    model = segmentation_network()
    quantize(model, QuantizationSpec(measured_ranges(model)))
    scales = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert scales["joined"] == scales["upper"] == scales["residual"] == scales["pooled"]
    assert scales["joined"] not in (scales["head"], scales["gated"])


def test_the_weights_are_stored_as_one_byte_each():
    model = segmentation_network()
    floats = {name: array for name, array in constants(model).items() if name.endswith(".w")}
    quantize(model, QuantizationSpec(measured_ranges(model)))
    after = constants(model)
    assert all(after[f"{name}.int8"].dtype == np.int8 and name not in after for name in floats)


@pytest.mark.parametrize(("op_type", "axis"), [("Conv", 0), ("ConvTranspose", 1), ("MatMul", 1)])
def test_a_weight_has_one_scale_an_output_channel(op_type, axis):
    b = Builder()
    shape = {"Conv": (5, 3, 1, 1), "ConvTranspose": (3, 5, 2, 2), "MatMul": (48, 5)}[op_type]
    weight = b.random.normal(size=shape).astype(np.float32)
    options = {"kernel_shape": [2, 2], "strides": [2, 2]} if op_type == "ConvTranspose" else {}
    b.node(op_type, ["x", b.constant("w", weight)], "y", **options)
    model = b.model("y", element=TensorProto.FLOAT)
    quantize(model, QuantizationSpec({"x": (-3.0, 3.0)}))
    others = tuple(a for a in range(weight.ndim) if a != axis)
    np.testing.assert_allclose(constants(model)["w.scale"], np.abs(weight).max(others) / 127, rtol=1e-6)
    (node,) = (n for n in model.graph.node if n.input[0] == "w.int8")
    assert onnx.helper.get_node_attr_value(node, "axis") == axis


def test_a_grouped_transposed_convolution_has_one_scale_in_all():
    b = Builder()
    b.convolution("stem", "x", (3, 4))
    weight = b.constant("w", b.random.normal(size=(4, 2, 2, 2)).astype(np.float32))
    b.node("ConvTranspose", ["stem", weight], "y", kernel_shape=[2, 2], strides=[2, 2], group=2)
    model = b.model("y", element=TensorProto.FLOAT)
    quantize(model, QuantizationSpec(measured_ranges(b.model("y", element=TensorProto.FLOAT))))
    assert constants(model)["w.scale"].shape == ()
    run(model)


def test_weight_scales_that_were_learned_are_used_and_follow_the_batch_norm():
    model, learned = segmentation_network(), np.full(16, 0.01, np.float32)
    quantize(model, QuantizationSpec(measured_ranges(model), weight_scales={"stem.w": learned}))
    scale, _, _, variance = (constants(segmentation_network())[f"stem.bn{i}"] for i in range(4))
    np.testing.assert_allclose(constants(model)["stem.w.scale"], 0.01 * scale / np.sqrt(variance + 1e-5), rtol=1e-5)


def test_a_range_is_covered_and_zero_is_exact():
    assert Scale.from_range(0.0, 5.1, "uint8") == Scale(pytest.approx(0.02), np.uint8(0))
    assert Scale.from_range(-2.54, 2.54, "uint8") == Scale(pytest.approx(0.02), np.uint8(128))
    for low, high in ((-0.375, 6.0), (-1.0, 2.54), (-5.0, 0.1)):  # finer than if both sides had equally many steps
        scale = Scale.from_range(low, high, "uint8")
        assert scale.scale < max(-low, high) / 127
        assert (
            scale.scale * (0 - int(scale.zero_point)) <= low * 0.999
            and scale.scale * (255 - int(scale.zero_point)) >= high * 0.999
        )
    assert Scale.from_range(0.0, 2.54, "int8") == Scale(pytest.approx(0.02), np.int8(0))
    assert Scale.from_range(0.0, 0.0, "uint8").scale > 0


def test_rounding_is_that_of_quantize_linear():
    array = np.array([[-300.0, -2.5, -0.5], [0.5, 1.5, 127.4]], np.float32)
    assert to_int8(array, np.ones(2, np.float32), 0).tolist() == [[-127, -2, 0], [0, 2, 127]]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    assert weight_scales(node, np.zeros((2, 3, 1, 1), np.float32), "vnni").min() > 0


def test_a_range_that_is_missing_is_named():
    model = segmentation_network()
    ranges = {name: found for name, found in measured_ranges(model).items() if name != "stem"}
    with pytest.raises(UserError, match="stem"):
        quantize(model, QuantizationSpec(ranges))


def test_a_network_without_a_layer_to_quantize_is_refused():
    b = Builder()
    b.node("Sigmoid", ["x"], "y")
    with pytest.raises(UserError, match="no layer of this network can be quantized: y"):
        quantize(b.model("y", element=TensorProto.FLOAT), QuantizationSpec({}))


def test_a_layer_kept_float_reads_and_writes_float():
    model = segmentation_network()
    result = quantize(model, QuantizationSpec(measured_ranges(model), keep_float=("head.w",)))
    (convolution,) = (node for node in model.graph.node if "head.w" in node.input)
    assert convolution.input[0] == "joined"
    assert [left.reason for left in result.floats if left.tensor == "head.norm"] == ["named by compress.keep_float"]


def test_a_channel_of_next_to_nothing_gives_its_bias_in_every_engine():
    """Converged networks have dead channels: in steps as small as their weights, a bias would not fit into int32."""
    body = "a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) y = Conv(b, w2)"
    model = graph(body, {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)})
    weights = {name: value.copy() for name, value in constants(model).items()}
    weights["w1"][2] *= 1e-9
    weights["b1"][2] = 100.0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (expected,) = session_of(model, 1).run(None, {"x": image})
    ranges = {"x": (-4.0, 4.0), "b": (0.0, 130.0)}
    quantize(model, QuantizationSpec(ranges, target="any"))
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model.SerializeToString()), "CPU")
    found = [session_of(model, 1, optimized).run(None, {"x": image})[0] for optimized in (False, True)]
    for result in (*found, compiled([image])[0]):
        assert np.abs(result - expected).max() < 0.1 * np.abs(expected).max()
