from pathlib import Path

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.networks.network import set_weights, weights_of
from segslim.networks.weight_files import read_weights, write_pdparams
from tests.training.toy import toy_network


def test_weights_of_another_num_classes_are_named_with_both_shapes(tmp_path: Path) -> None:
    write_pdparams(tmp_path / "a.pdparams", weights_of(toy_network(num_classes=19)))
    target = toy_network()
    before = weights_of(target)
    with pytest.raises(UserError) as told:
        set_weights(target, read_weights(tmp_path / "a.pdparams"), "a.pdparams")
    assert "does not fit the network in 4 weights" in str(told.value)
    assert "head.weight is 19x8x1x1, the network's is 2x8x1x1" in str(told.value)
    assert "num_classes" in str(told.value) and "\n" not in str(told.value)
    assert all(np.array_equal(array, before[name]) for name, array in weights_of(target).items())


def test_first_five_misfits_are_named_and_the_others_counted() -> None:
    with pytest.raises(UserError, match=r"in 10 weights: stem\.0\.weight is missing; .*; and 5 more\. ") as told:
        set_weights(toy_network(), {}, "a.pdparams")
    assert str(told.value).count("is missing") == 5


def test_weight_that_the_network_has_not_is_named() -> None:
    network = toy_network()
    with pytest.raises(UserError, match=r"in 1 weights: extra\.weight is not in the network\."):
        set_weights(network, {**weights_of(network), "extra.weight": np.zeros(2)}, "a.pdparams")


def test_bfloat16_as_paddle_saves_it_and_float16_become_the_networks_type() -> None:
    network = toy_network()
    weights = weights_of(network)
    half = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in weights.items()}
    set_weights(network, half, "a.pdparams")
    for name, array in weights_of(network).items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, weights[name], rtol=0.01)
    set_weights(network, {name: array.astype(np.float16) for name, array in weights.items()}, "a.pdparams")
    np.testing.assert_allclose(weights_of(network)["head.weight"], weights["head.weight"], rtol=0.01)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing", "missing.pdparams"])
def test_missing_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        read_weights(tmp_path / name)


def test_folder_that_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors: does not exist"):
        read_weights(tmp_path)
