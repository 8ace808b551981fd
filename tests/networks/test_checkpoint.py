import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.channels import Channels, prune_by_ratio
from segslim.errors import UserError
from segslim.networks.build import build_network
from segslim.networks.checkpoint import load_checkpoint, save_checkpoint
from segslim.networks.weights import weights_of
from segslim.paddle_compat import import_paddle

paddle = import_paddle()
TOY: dict[str, Any] = {"_target_": "tests.training.toy.ToyNetwork", "num_classes": 3}
FAST_SCNN: dict[str, Any] = {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2, "pretrained": None}


@pytest.mark.parametrize("model", [TOY, FAST_SCNN], ids=["toy", "fast_scnn"])
def test_network_comes_back_with_every_weight_and_statistic(tmp_path: Path, model: dict) -> None:
    network = build_network(model, seed=1)
    save_checkpoint(tmp_path, network, model, metrics={"miou": 0.5})
    loaded = load_checkpoint(tmp_path)
    assert (loaded.model, loaded.channels) == (model, None)
    expected, found = weights_of(network), weights_of(loaded.network)
    assert found.keys() == expected.keys() == dict(network.state_dict()).keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert any(name.endswith("_mean") for name in found)


def test_dense_checkpoint_has_no_channels_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, build_network(TOY), TOY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.yaml", "weights.safetensors"]


def test_type_of_floats_is_kept(tmp_path: Path) -> None:
    network = build_network(TOY)
    network.to(dtype="float64")
    save_checkpoint(tmp_path, network, TOY)
    assert {array.dtype for array in weights_of(load_checkpoint(tmp_path).network).values()} == {np.dtype("float64")}


def test_nothing_pretrained_is_fetched_to_be_overwritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, build_network(FAST_SCNN), {**FAST_SCNN, "pretrained": "https://nowhere.invalid/weights"})
    loaded = load_checkpoint(tmp_path)
    assert loaded.model["pretrained"] == "https://nowhere.invalid/weights"


def test_weights_of_another_network_are_not_skipped_but_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, build_network({**TOY, "num_classes": 4}), TOY)
    with pytest.raises(UserError, match=r"in 4 weights: head\.weight is 4x8x1x1, the network's is 3x8x1x1"):
        load_checkpoint(tmp_path)


def test_pruned_network_comes_back_and_can_be_pruned_and_saved_again(tmp_path: Path) -> None:
    image = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    network, channels = build_network(FAST_SCNN, seed=1), None
    for folder in (tmp_path / "once", tmp_path / "twice"):
        channels = prune_by_ratio(network, (1, 3, 64, 64), ratio=0.3, channels=channels).channels
        save_checkpoint(folder, network, FAST_SCNN, channels)
        loaded = load_checkpoint(folder)
        assert loaded.channels == channels
        for trained in (network, loaded.network):
            trained.eval()
        np.testing.assert_array_equal(network(image)[0].numpy(), loaded.network(image)[0].numpy())


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors", "channels.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00["])
def test_torn_file_is_told_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    save_checkpoint(tmp_path, build_network(TOY), TOY, Channels(), metrics={})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors"])
def test_missing_file_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path, build_network(TOY), TOY)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: does not exist; give"):
        load_checkpoint(tmp_path)


def test_files_say_what_they_hold(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path, build_network(TOY), TOY, channels=Channels(groups={"a": 2}), metrics={"history": [{"miou": 0.1}]}
    )
    assert (tmp_path / "model.yaml").read_text() == "_target_: tests.training.toy.ToyNetwork\nnum_classes: 3\n"
    assert json.loads((tmp_path / "channels.json").read_text()) == {"kept": {}, "groups": {"a": 2}, "sizes": {}}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"history": [{"miou": 0.1}]}
