"""A spec is a frozen value, comes back from its folder as it was, and needs no ONNX and no Paddle."""

import dataclasses

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.quantization.spec import QuantizationSpec

INT8 = QuantizationSpec(
    {"relu.0": (0.0, 2.5), "add": (-1.0, 1.0)},
    weight_scales={"conv.w": np.arange(6, dtype=np.float32).reshape(2, 3)[:, 1]},  # not contiguous
    keep_float=("head.w",),
    activation_type="int8",
    compute=("float32",),
    fake_quantize={"weight_bits": 8},
    origin="mse",
    noisiest_layers=("head",),
)
BFLOAT16 = QuantizationSpec(precision="float32", compute=("bfloat16", "float32"))


@pytest.mark.parametrize("spec", [INT8, BFLOAT16], ids=["int8", "float32"])
def test_a_spec_comes_back_as_it_was(tmp_path, spec):
    spec.save(tmp_path)
    again = QuantizationSpec.load(tmp_path)
    assert dataclasses.replace(again, weight_scales={}) == dataclasses.replace(spec, weight_scales={})
    assert again.is_int8 == (spec is INT8) and again.weight_scales.keys() == spec.weight_scales.keys()
    for name, scales in spec.weight_scales.items():
        np.testing.assert_array_equal(again.weight_scales[name], scales)


def test_a_folder_without_a_spec_gives_none(tmp_path):
    assert QuantizationSpec.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "ranges: [1]", "ranges: {a: [0]}\nkeep_float: []\norigin: x", "{"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "quantization.yaml").write_text(text)
    with pytest.raises(UserError, match=r"quantization\.yaml"):
        QuantizationSpec.load(tmp_path)


@pytest.mark.parametrize("wrong", [{"precision": "int4"}, {"precision": "float32", "ranges": {"x": (0.0, 1.0)}}])
def test_a_precision_that_contradicts_itself_cannot_be_made(wrong):
    with pytest.raises(ValueError, match="precision="):
        QuantizationSpec(**wrong)
