"""A checkpoint as a value: what is made from it carries everything on, and its folder gives it back whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segslim.channels import Channels
from segslim.channels.allocation import allocate
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import build_network, set_weights, weights_of
from segslim.networks.weight_files import read_weights, write_pdparams
from segslim.paddle_compat import import_paddle
from segslim.quantization.spec import QuantizationSpec
from tests.training.toy import toy_network

paddle = import_paddle()
TOY: dict[str, Any] = {"_target_": "tests.training.toy.ToyNetwork", "num_classes": 3}
FAST_SCNN: dict[str, Any] = {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2, "pretrained": None}
SPEC = QuantizationSpec(
    {"x": (-1.0, 2.0)},
    weight_scales={"head.weight": np.ones(3, np.float32)},
    activation_type="int8",
    compute=("bfloat16",),
    origin="here",
)


def dense(model: dict[str, Any] = TOY, **measured: Any) -> Checkpoint:
    return Checkpoint.of_network(build_network(model, seed=1), model, **measured)


def pruned(checkpoint: Checkpoint) -> Checkpoint:
    graph = checkpoint.channel_graph((64, 64))
    scores = {group.name: np.arange(group.size, dtype=float) for group in graph.prunable_groups}
    return checkpoint.pruned(graph, allocate(graph, scores, None, 0.3))


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    assert (found.model, found.channels, found.measured) == (expected.model, expected.channels, expected.measured)
    assert found.weights.keys() == expected.weights.keys()
    for name, array in expected.weights.items():
        assert found.weights[name].dtype == array.dtype
        np.testing.assert_array_equal(found.weights[name], array)
    if expected.quantization is None:
        assert found.quantization is None
        return
    ours, theirs = ({**vars(each.quantization), "weight_scales": None} for each in (found, expected))
    assert ours == theirs
    for name, scales in expected.quantization.weight_scales.items():
        np.testing.assert_array_equal(found.quantization.weight_scales[name], scales)


def test_every_part_comes_back_from_the_folder(tmp_path: Path) -> None:
    given = pruned(dense(FAST_SCNN, training={"miou": 0.5})).quantized(SPEC, layers={"head": 3.0})
    assert given.channels is not None and given.measured == {"training": {"miou": 0.5}, "layers": {"head": 3.0}}
    given.save(tmp_path)
    assert_equal(Checkpoint.load(tmp_path), given)
    assert Checkpoint.measured_in(tmp_path) == given.measured


def test_new_weights_keep_how_it_is_quantized_and_its_channels() -> None:
    given = pruned(dense(FAST_SCNN)).quantized(SPEC)
    network = given.network()
    halved = given.with_weights({name: array / 2 for name, array in weights_of(network).items()})
    assert (halved.quantization, halved.channels) == (SPEC, given.channels)
    name = next(iter(given.weights))
    np.testing.assert_array_equal(halved.weights[name], given.weights[name] / 2)
    assert_equal(given.with_weights(network), given)


def test_channels_of_a_quantized_network_cannot_go_silently() -> None:
    checkpoint = dense(FAST_SCNN).quantized(SPEC)
    with pytest.raises(UserError, match="put quantize after"):
        pruned(checkpoint)
    assert (
        pruned(checkpoint.quantized(QuantizationSpec(precision="float32", compute=("bfloat16",)))).quantization
        is not None
    )


def test_a_pruned_network_gives_the_same_output_from_its_folder_and_can_be_pruned_again(tmp_path: Path) -> None:
    image = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    checkpoint = dense(FAST_SCNN)
    sizes = [sum(array.size for array in checkpoint.weights.values())]
    for folder in (tmp_path / "once", tmp_path / "twice"):
        checkpoint = pruned(checkpoint)
        checkpoint.save(folder)
        networks = checkpoint.network(), Checkpoint.load(folder).network()
        outputs = [(network.eval(), network(image)[0].numpy())[1] for network in networks]
        np.testing.assert_array_equal(*outputs)
        sizes.append(sum(array.size for array in checkpoint.weights.values()))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_type_of_floats_is_kept(tmp_path: Path) -> None:
    network = build_network(TOY)
    network.to(dtype="float64")
    Checkpoint.of_network(network, TOY).save(tmp_path)
    rebuilt = weights_of(Checkpoint.load(tmp_path).network())
    assert {array.dtype for array in rebuilt.values()} == {np.dtype("float64")}


def test_nothing_pretrained_is_fetched_to_be_overwritten() -> None:
    model = {**FAST_SCNN, "pretrained": "https://nowhere.invalid/weights"}
    checkpoint = Checkpoint.of_network(build_network(FAST_SCNN, seed=1), model)
    assert checkpoint.network() is not None and checkpoint.model["pretrained"] == model["pretrained"]


@pytest.mark.parametrize("form", ["checkpoint", "checkpoint/weights.safetensors", "model.pdparams"])
def test_weights_are_taken_from_a_folder_and_from_files(tmp_path: Path, form: str) -> None:
    source = dense()
    source.save(tmp_path / "checkpoint")
    write_pdparams(tmp_path / "model.pdparams", source.weights)
    assert_equal(Checkpoint.of_file(tmp_path / form, TOY, seed=2), source)


def test_a_given_folder_brings_its_channels_and_its_precision(tmp_path: Path) -> None:
    given = pruned(dense(FAST_SCNN)).quantized(SPEC)
    given.save(tmp_path)
    assert_equal(Checkpoint.of_file(tmp_path, FAST_SCNN, seed=2), given)


def test_weights_that_do_not_fit_are_named_and_the_network_stays_as_it_was() -> None:
    network = toy_network()
    before = weights_of(network)
    for weights, words in (
        (weights_of(toy_network(num_classes=19)), "in 4 weights: head.weight is 19x8x1x1, the network's is 2x8x1x1"),
        ({}, "in 10 weights: stem.0.weight is missing; "),
        ({}, "; and 5 more. "),
        ({**before, "extra.weight": np.zeros(2)}, "in 1 weights: extra.weight is not in the network."),
    ):
        with pytest.raises(UserError) as told:
            set_weights(network, weights, "a.pdparams")
        assert words in str(told.value) and "\n" not in str(told.value)
    assert all(np.array_equal(array, before[name]) for name, array in weights_of(network).items())


def test_bfloat16_as_paddle_saves_it_and_float16_become_the_networks_type() -> None:
    network = toy_network()
    weights = weights_of(network)
    bfloat16 = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in weights.items()}
    for half in (bfloat16, {name: array.astype(np.float16) for name, array in weights.items()}):
        set_weights(network, half, "a.pdparams")
        for name, array in weights_of(network).items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, weights[name], rtol=0.01)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing", "missing.pdparams", ""])
def test_a_file_of_weights_that_is_missing_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name or r"weights\.safetensors: does not exist"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors", "channels.json", "quantization.yaml"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00["])
def test_a_torn_file_is_one_line_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    Checkpoint(TOY, dense().weights, Channels(groups={"a": 2}), SPEC).save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as error:
        Checkpoint.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors"])
def test_a_missing_file_is_one_line_with_its_name(tmp_path: Path, name: str) -> None:
    dense().save(tmp_path)
    assert yaml.safe_load((tmp_path / "model.yaml").read_text()) == TOY
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: does not exist; give"):
        Checkpoint.load(tmp_path)
