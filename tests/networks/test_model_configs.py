"""Every file in conf/model builds a network that its losses train."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.networks.network import build_network
from segslim.paddle_compat import import_paddle
from segslim.training.losses import build_losses, segmentation_loss
from segslim.training.optimizer import FitOptions, Optimizer
from tests.command import config

paddle = import_paddle()
MODELS = (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
CONFIGS = sorted(file for file in MODELS if file.stem != "exported")  # that is a file of the user's
LIGHT = {"fast_scnn", "bisenetv2", "pp_humanseg_lite", "enet", "lraspp"}
STEPPED = {*LIGHT, "hardnet", "fcn_hrnetw18", "mobileseg", "pp_liteseg", "stdcseg", "segformer_b0"}


def _model(file: Path) -> Any:
    return config(f"model={file.stem}", "dataset.num_classes=3", "dataset.classes=null", "dataset.colours=null").model


def _batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (2, 64, 96))
    label[:, :4] = 255
    return {"img": random.normal(size=(2, 3, 64, 96)).astype(np.float32), "label": label}


def _parameters() -> list[Any]:
    return [pytest.param(file, id=file.stem, marks=[] if file.stem in LIGHT else pytest.mark.slow) for file in CONFIGS]


@pytest.mark.parametrize("file", _parameters())
def test_network_is_trained_by_its_losses(file: Path) -> None:
    model, batch = _model(file), _batch()
    assert model.name == file.stem
    network, losses = build_network(model.network, seed=0), build_losses(model.loss)
    names = [tensor.name for tensor in network.parameters()]
    assert len(names) == len(set(names))  # the momentum of a parameter is known by its name
    network.train()
    if file.stem in STEPPED:
        before = {name: tensor.numpy().copy() for name, tensor in network.named_parameters()}
        assert np.isfinite(Optimizer(network, losses, FitOptions(iters=1, learning_rate=0.01)).step(batch, 0))
        assert any((before[name] != tensor.numpy()).any() for name, tensor in network.named_parameters())
        return
    with paddle.no_grad():  # the heavy ones take their steps too long; what is theirs is that heads and losses fit
        logits = network(paddle.to_tensor(batch["img"]))
        assert np.isfinite(float(segmentation_loss(logits, paddle.to_tensor(batch["label"]), losses)))
