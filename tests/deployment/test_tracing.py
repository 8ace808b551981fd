import logging
from pathlib import Path
from typing import Any

import pytest

from segslim.deployment.conversion import save_inference_model
from tests.deployment.networks import TinyNetwork, build, nn, paddle


class Branch(nn.Layer):  # type: ignore[name-defined]
    def forward(self, x: Any) -> Any:
        if paddle.mean(x) > 1e9:
            x = x * 100
        return x


def translated(caplog: pytest.LogCaptureFixture, network: Any, folder: Path) -> bool:
    with caplog.at_level(logging.INFO, "segslim.deployment.conversion"):
        save_inference_model(network, folder, (1, 3, 64, 64), "logits")
    return "is traced by translation" in caplog.text


def test_network_of_fixed_size_is_traced_without_translation(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert not translated(caplog, build("fast_scnn"), tmp_path)


def test_network_that_branches_on_a_tensor_is_translated(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert translated(caplog, TinyNetwork(Branch()), tmp_path)


def test_files_of_another_paddle_are_removed(tmp_path: Path) -> None:
    for name in ("model.json", "model.pdmodel"):
        (tmp_path / name).write_text("of an earlier export")
    model_file, params_file = save_inference_model(TinyNetwork(), tmp_path, (1, 3, 32, 32), "logits")
    assert {file.name for file in tmp_path.iterdir() if file.suffix != ".info"} == {model_file.name, params_file.name}
