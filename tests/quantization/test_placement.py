from onnx import TensorProto

from segslim.quantization.graph import folded_copy
from segslim.quantization.placement import place_integers
from tests.networks.exported_graphs import graph
from tests.quantization.graphs import Builder, segmentation_network


def placed(model, keep_float=()):
    return place_integers(folded_copy(model), keep_float)


def test_nothing_turns_to_float_between_two_integer_kernels():
    placement = placed(segmentation_network())
    assert {"x", "stem", "residual", "pooled", "deep", "gated", "upper", "joined", "head"} <= set(placement.groups)
    assert {"sum", "pooled", "gated", "joined"} <= placement.integer


def test_a_rectifier_is_part_of_the_kernel_before_it():
    assert "stem.norm" not in placed(segmentation_network()).groups
    assert "sum" not in placed(segmentation_network()).groups


def test_what_stays_float_is_said_with_the_reason():
    floats = {left.tensor: left.reason for left in placed(segmentation_network()).floats}
    assert floats == {
        "gate.sigmoid": "in float as the end of the integer kernel before it",
        "upper": "interpolates in float",
        "large": "interpolates in float",
        "classes": "has no integer kernel",
        "argmax": "has no integer kernel",
    }


def test_both_sides_of_a_residual_are_int8_also_where_one_is_read_twice():
    b = Builder()
    stem = b.convolution("stem", "x", (3, 4))
    b.node("Add", [stem, b.convolution("branch", stem, (4, 4))], "sum")
    b.convolution("last", "sum", (4, 4))
    groups = placed(b.model("last", element=TensorProto.FLOAT)).groups
    assert {"stem", "branch", "sum"} <= set(groups) and groups["stem"] != groups["branch"]


def test_a_tensor_before_a_rectifier_that_is_read_elsewhere_is_int8_itself():
    b = Builder()
    b.node("Conv", ["x", b.constant("w", b.random.normal(size=(4, 3, 1, 1)).astype("float32"))], "pre")
    b.node("Add", [b.convolution("next", b.node("Relu", ["pre"], "post"), (4, 4)), "pre"], "sum")
    b.convolution("last", "sum", (4, 4))
    groups = placed(b.model("last", element=TensorProto.FLOAT)).groups
    assert groups["pre"] == groups["post"]


def test_keep_float_ends_the_int8_region():
    placement = placed(segmentation_network(), keep_float=("deep.w",))
    assert "deep.norm" not in placement.integer and "deep" in placement.groups


def test_a_swish_of_its_parts_is_rounded_before_and_after_and_not_in_between():
    body = "a = Conv(x, w1) c = Add(a, three) d = Clip(c, none, six) e = Mul(a, d) f = Div(e, six) y = Conv(f, w2)"
    model = graph(body, {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1), "three": 3.0, "six": 6.0, "none": 0.0})
    assert set(place_integers(model).groups) == {"x", "a", "f"}
