"""A network becomes Paddle's inference model and an ONNX file, and is left as it was."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segslim.deployment.conversion import convert, save_inference_model
from segslim.deployment.convertible import averaging_matrix, convertible_operators
from segslim.errors import UserError
from tests.deployment.networks import Branch, TinyNetwork, build, nn, paddle, random_images

numbers = st.integers(1, 40)


def test_an_abort_of_the_converter_is_an_error_that_names_the_network_and_files_stay_as_they_were(tmp_path):
    for name in ("model.json", "model.pdmodel"):
        (tmp_path / name).write_text("of an earlier export by another Paddle")
    model_file, params_file = save_inference_model(TinyNetwork(), tmp_path, (1, 3, 32, 32), "logits")
    assert {file.name for file in tmp_path.iterdir() if file.suffix != ".info"} == {model_file.name, params_file.name}
    before = model_file.read_bytes()
    convert(model_file, params_file, tmp_path / "model.onnx", "TinyNetwork")
    assert model_file.read_bytes() == before
    model_file.write_bytes(before[:100])
    with pytest.raises(UserError, match=r"^a network cannot be converted .*paddle2onnx (was killed|ended)"):
        convert(model_file, params_file, tmp_path / "model.onnx", "a network")


@pytest.mark.parametrize(
    ("make", "translated"), [(lambda: build("fast_scnn"), False), (lambda: TinyNetwork(Branch()), True)]
)
def test_only_a_network_that_branches_on_a_tensor_is_translated(make, translated, caplog, tmp_path):
    with caplog.at_level(logging.INFO, "segslim.deployment.conversion"):
        save_inference_model(make(), tmp_path, (1, 3, 64, 64), "logits")
    assert ("is traced by translation" in caplog.text) == translated


@settings(max_examples=60, deadline=None)
@given(height=numbers, width=numbers, bins=st.tuples(st.integers(1, 12), st.integers(1, 12) | st.none()))
def test_matrices_equal_adaptive_average_pooling(height, width, bins):
    images = paddle.to_tensor(random_images(1, 2, height, width))
    with convertible_operators():
        pooled = nn.functional.adaptive_avg_pool2d(images, list(bins)).numpy()
    assert np.allclose(pooled, nn.functional.adaptive_avg_pool2d(images, bins).numpy(), atol=1e-6)
    fixed = averaging_matrix(height, bins[0])
    dynamic = averaging_matrix(paddle.to_tensor(height), paddle.to_tensor(bins[0]))
    assert np.array_equal(dynamic.numpy(), fixed.numpy())
