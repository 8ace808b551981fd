import dataclasses

import numpy as np
import pytest
from segslim.quantization.table import Table

from segslim.errors import UserError


def test_a_table_comes_back_as_it_was(tmp_path):
    table = Table(
        {"relu.0": (0.0, 2.5), "add": (-1.0, 1.0)},
        {"conv.w": np.ones(3, np.float32)},
        ("head.w",),
        "int8",
        ("float32",),
        {"weight_bits": 8},
        "mse",
        ("head",),
    )
    table.save(tmp_path)
    again = Table.load(tmp_path)
    assert dataclasses.replace(again, weights={}) == dataclasses.replace(table, weights={})
    np.testing.assert_array_equal(again.weights["conv.w"], table.weights["conv.w"])


def test_a_float_checkpoint_has_no_table(tmp_path):
    assert Table.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "ranges: [1]", "ranges: {a: [0]}\nkeep_float: []\norigin: x", "{"])
def test_a_torn_table_is_named(tmp_path, text):
    (tmp_path / "quantization.yaml").write_text(text)
    with pytest.raises(UserError, match=r"quantization\.yaml"):
        Table.load(tmp_path)
