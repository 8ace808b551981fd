"""On x86 without VNNI kernels add products of bytes in pairs, in 16 bits: tried on the engines, with extreme values.

oneDNN, which OpenVINO computes with, takes such a processor's kernels on others too where a variable says so. ONNX
Runtime goes by the processor alone, so its half fails only where there is no VNNI.
"""

import os
import platform
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel

from segslim.quantization.qdq import quantize
from segslim.quantization.saturation import largest_pairs
from segslim.quantization.spec import QuantizationSpec

# one for each way in which engines compute: the weight's shape and the image's
LAYERS = {
    "dense": ("Conv", (16, 16, 3, 3), (1, 16, 8, 8), {}),
    "first": ("Conv", (16, 3, 3, 3), (1, 3, 8, 8), {}),
    "grouped": ("Conv", (24, 3, 3, 3), (1, 24, 8, 8), {"group": 8}),
    "multiplier": ("Conv", (32, 1, 3, 3), (1, 16, 8, 8), {"group": 16}),
    "depthwise": ("Conv", (16, 1, 3, 3), (1, 16, 8, 8), {"group": 16}),
    "transposed": ("ConvTranspose", (16, 16, 2, 2), (1, 16, 8, 8), {"strides": [2, 2]}),
    "linear": ("MatMul", (49, 16), (1, 8, 49), {}),
}
WEIGHTS = {
    "equal": np.ones,
    "alternating": lambda shape: np.where(np.indices(shape).sum(0) % 2, -1.0, 1.0),
    "normal": lambda shape: np.random.default_rng(0).normal(size=shape),
}
LOWS = (0.0, -1.0)
TARGETS = ("avx2", "any", "vnni")
PROGRAM = """
import numpy, openvino
images = dict(numpy.load("images.npz"))
for target in ("avx2", "any", "vnni"):
    network = openvino.Core().compile_model(f"{target}.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = network(images)
    numpy.savez(f"{target}.npz", **{port.any_name: outputs[port] for port in network.outputs})
"""


def layers_side_by_side(target: str) -> onnx.ModelProto:
    """Each layer with each kind of weights, its input from 0 or from -1 to 1, all int8; outputs are named as such."""
    nodes, constants, ranges, outputs = [], [], {}, []
    for kind, (op_type, shape, _, options) in LAYERS.items():
        for low in LOWS:
            ranges[f"{kind} {low}"] = (low, 1.0)
            for weights, make in WEIGHTS.items():
                name, weight = f"{kind} {low} {weights}", make(shape).astype(np.float32)
                constants.append(numpy_helper.from_array(weight, f"{name} w"))
                nodes.append(helper.make_node(op_type, [f"{kind} {low}", f"{name} w"], [f"{name} y"], **options))
                nodes.append(helper.make_node("Neg", [f"{name} y"], [name]))
                ranges[f"{name} y"] = (-largest_output(kind), largest_output(kind))
                outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    inputs = [
        helper.make_tensor_value_info(f"{kind} {low}", TensorProto.FLOAT, image)
        for kind, (_, _, image, _) in LAYERS.items()
        for low in LOWS
    ]
    graph = helper.make_graph(nodes, target, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    quantize(model, QuantizationSpec(ranges, target=target))
    return model


def largest_output(kind: str) -> float:
    """With weights of 1 and an image of ones."""
    op_type, shape, _, _ = LAYERS[kind]
    return float(shape[0] if op_type != "Conv" else np.prod(shape[1:]))


def extremes(low: float, shape: tuple[int, ...]) -> np.ndarray:
    """Ones in the upper half, both ends of the range at random in the lower."""
    image = np.random.default_rng(0).choice(np.array([low, 1], np.float32), shape)
    np.moveaxis(image, -2, 0)[: shape[-2] // 2] = 1
    return image


def in_onnxruntime(model: onnx.ModelProto, images: dict[str, np.ndarray], **levels: object) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    for name, level in levels.items():
        setattr(options, name, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, images), strict=True))


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """{(target, engine, layer with its input and weights): the largest error, as a share of the largest output}."""
    folder = tmp_path_factory.mktemp("saturation")
    images = {f"{kind} {low}": extremes(low, image) for kind, (_, _, image, _) in LAYERS.items() for low in LOWS}
    np.savez(folder / "images.npz", **images)
    models = {target: layers_side_by_side(target) for target in TARGETS}
    for target, model in models.items():
        onnx.save(model, folder / f"{target}.onnx")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=environment, check=True)
    found = {}
    for target, model in models.items():
        exact = in_onnxruntime(model, images, graph_optimization_level=GraphOptimizationLevel.ORT_DISABLE_ALL)
        for engine, run in (
            ("onnxruntime", in_onnxruntime(model, images)),
            ("openvino", np.load(folder / f"{target}.npz")),
        ):
            for name, output in exact.items():
                found[target, engine, name] = np.abs(run[name] - output).max() / largest_output(name.split()[0])
    return found


@pytest.mark.parametrize("target", ["avx2", "any"])
def test_no_layer_saturates_on_a_processor_without_vnni(errors, target):
    # an output is off by one of 127 steps where the engines round halves differently
    assert {key: error for key, error in errors.items() if key[0] == target and error > 2 / 127} == {}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are those of x86")
def test_weights_of_8_bits_do_saturate_there(errors):
    wrong = {name.split()[0] for (target, engine, name), error in errors.items() if target == "vnni" and error > 0.2}
    assert wrong == set(LAYERS) - {"depthwise"}


def test_a_pair_of_unequal_weights_keeps_its_8_bits():
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = np.array([[1, 0, -1, 0.5], [1, 0.5, 0, 0]], np.float32).reshape(2, 4, 1, 1)
    assert largest_pairs(node, weight, "avx2").tolist() == [1, 1.5]
    assert largest_pairs(node, weight, "any").tolist() == [1.5, 1.5]
    assert largest_pairs(node, weight, "vnni").tolist() == [1, 1]
