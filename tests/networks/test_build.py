import logging
from typing import Any

import pytest

from segslim.errors import UserError
from segslim.networks.network import build_network, weights_of

FAST_SCNN = {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2}
FCN = {
    "_target_": "paddleseg.models.FCN",
    "num_classes": 2,
    "backbone": {"_target_": "paddleseg.models.HRNet_W18_Small_V1", "pretrained": None},
}


def test_weights_follow_the_seed() -> None:
    first, same, other = (weights_of(build_network(FAST_SCNN, seed=seed)) for seed in (3, 3, 4))
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_parameter_names_do_not_depend_on_what_was_built_before() -> None:
    first, second = build_network(FAST_SCNN), build_network(FAST_SCNN)
    assert [tensor.name for tensor in first.parameters()] == [tensor.name for tensor in second.parameters()]


def test_config_is_left_as_it_was() -> None:
    config: dict[str, Any] = {**FCN, "backbone": dict(FCN["backbone"])}  # type: ignore[call-overload]
    build_network(config)
    assert config == FCN


def test_any_layer_is_built_by_its_name() -> None:
    network = build_network({"_target_": "tests.training.toy.ToyNetwork", "num_classes": 5})
    assert network.head.weight.shape[0] == 5


def test_paddlesegs_messages_go_to_its_logger_and_not_to_the_screen(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    backbone = {"_target_": "paddleseg.models.ResNet18_vd", "output_stride": 8}
    with caplog.at_level(logging.INFO, logger="paddleseg"):
        build_network({"_target_": "paddleseg.models.BiseNetV1", "num_classes": 2, "backbone": backbone})
    assert "will be trained from scratch" in caplog.text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_target_": "paddleseg.models.FastSCN"}, "model.network._target_=paddleseg.models.FastSCN: .* mean FastSCNN"),
        ({"_target_": "nowhere.Network"}, "model.network._target_=nowhere.Network: cannot be imported"),
        ({"_target_": "Network"}, "model.network._target_=Network: cannot be imported; give module.Name"),
        (
            {"num_clases": 2},
            "model.network.num_clases: paddleseg.models.FastSCNN does not take it; it takes num_classes",
        ),
        ({"num_classes": "two"}, "model.network: paddleseg.models.FastSCNN cannot be made of these arguments: "),
        ({"_target_": "collections.OrderedDict"}, "makes a OrderedDict, not a paddle.nn.Layer"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(change: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_network({**FAST_SCNN, **change})


def test_missing_argument_and_missing_target_are_told() -> None:
    with pytest.raises(
        UserError, match=r"model\.network\.num_classes has no value: paddleseg\.models\.FastSCNN needs it"
    ):
        build_network({"_target_": "paddleseg.models.FastSCNN"})
    with pytest.raises(UserError, match=r"model\.network\._target_ has no value"):
        build_network({"num_classes": 2})


def test_fault_of_a_backbone_is_told_by_the_backbones_key() -> None:
    wrong_name = {**FCN, "backbone": {"_target_": "paddleseg.models.HRNet_W17"}}
    with pytest.raises(
        UserError, match=r"model\.network\.backbone\._target_=paddleseg\.models\.HRNet_W17: .*HRNet_W18"
    ):
        build_network(wrong_name)
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        build_network({**FCN, "backbone": {"_target_": "paddleseg.models.HRNet_W18_Small_V1", "depth": 3}})
