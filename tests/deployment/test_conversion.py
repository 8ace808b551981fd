from pathlib import Path

import pytest

from segslim.deployment.conversion import convert
from segslim.deployment.conversion import save_inference_model
from segslim.errors import UserError
from tests.deployment.networks import TinyNetwork


def test_end_of_the_converter_is_not_the_end_of_the_caller(tmp_path: Path) -> None:
    model_file, params_file = save_inference_model(TinyNetwork(), tmp_path, (1, 3, 32, 32), "logits")
    model_file.write_bytes(model_file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"^a network cannot be converted to ONNX: paddle2onnx (was killed|ended)"):
        convert(model_file, params_file, tmp_path / "model.onnx", "a network")


def test_model_file_is_left_as_it_was(tmp_path: Path) -> None:
    model_file, params_file = save_inference_model(TinyNetwork(), tmp_path, (1, 3, 32, 32), "logits")
    before = model_file.read_bytes()
    convert(model_file, params_file, tmp_path / "model.onnx", "TinyNetwork")
    assert model_file.read_bytes() == before
