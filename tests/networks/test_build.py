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


NO_CLASSES = {"_target_": "paddleseg.models.FastSCNN"}
SMALL_HRNET = {"_target_": "paddleseg.models.HRNet_W18_Small_V1", "depth": 3}


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"_target_": "paddleseg.models.FastSCN"}, "model.network._target_=paddleseg.models.FastSCN: .* mean FastSCNN"),
        ({"_target_": "nowhere.Network"}, "model.network._target_=nowhere.Network: cannot be imported"),
        ({"_target_": "Network"}, "model.network._target_=Network: cannot be imported; give module.Name"),
        (
            {**FAST_SCNN, "num_clases": 2},
            "num_clases: paddleseg.models.FastSCNN does not take it; it takes num_c",
        ),
        ({**FAST_SCNN, "num_classes": "two"}, "model.network: paddleseg.models.FastSCNN cannot be made of these argu"),
        ({"_target_": "collections.OrderedDict"}, "makes a OrderedDict, not a paddle.nn.Layer"),
        (NO_CLASSES, "model.network.num_classes has no value: paddleseg.models.FastSCNN needs it"),
        ({"num_classes": 2}, "model.network._target_ has no value"),
        ({**FCN, "backbone": {"_target_": "paddleseg.models.HRNet_W17"}}, "backbone._target_=.*HRNet_W17: .*HRNet_W18"),
        ({**FCN, "backbone": SMALL_HRNET}, "unexpected keyword argument 'depth'"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(node: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_network(node)
