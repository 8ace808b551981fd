"""The layers that lose most come first, and the fewest and cheapest that win enough mIoU back stay float."""

import numpy as np
import pytest
from onnx import helper

from segslim.quantization.calibration import activation_ranges, collect_statistics
from segslim.quantization.mixed_precision import CANDIDATES, choose_float_layers, signal_to_noise, weight_noise
from tests.quantization.graphs import image, segmentation_network

RATIOS = {f"layer{i}": float(i) for i in range(12)}


def test_the_layer_whose_input_has_an_outlier_comes_first():
    model, outlier = segmentation_network(), image()
    outlier[0, 0, 0, 0] = 500.0
    statistics = collect_statistics(model, [outlier], 1)
    ratios = signal_to_noise(model, statistics, activation_ranges(statistics, "abs_max", 0), "vnni")
    assert next(iter(ratios)) == "stem.w" and list(ratios.values()) == sorted(ratios.values())
    assert set(ratios) == {"stem.w", "depthwise.w", "deep.w", "gate.w", "head.w", "logits.w"}


def test_the_noise_of_a_weight_is_that_of_rounding():
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 100_000, 1, 1)).astype(np.float32)
    assert weight_noise(node, weight, "vnni") == pytest.approx((1 / 127) ** 2 / 12 / (1 / 3), rel=0.05)
    assert weight_noise(node, weight, "avx2") == pytest.approx((2 / 127) ** 2 / 12 / (1 / 3), rel=0.05)
    assert weight_noise(node, np.zeros((2, 3, 1, 1), np.float32), "vnni") == 0


@pytest.mark.parametrize(
    ("gains", "costs", "loss", "expected"),
    [
        pytest.param({}, {}, 0.2, (), id="none where little is lost"),
        pytest.param({1: 0.02, 4: 0.06, 6: 0.03}, {}, 0.02, (4, 6), id="the fewest, the best first"),
        pytest.param({1: 0.08, 4: 0.08}, {1: 1000, 4: 10}, 0.03, (4,), id="the cheaper of equals"),
        pytest.param({1: 0.01, 4: 0.09}, {1: 10, 4: 1000}, 0.01, (4,), id="not one that another makes needless"),
    ],
)
def test_layers_kept_float(gains, costs, loss, expected):
    kept, alone = choose(gains, costs, loss)
    assert kept == tuple(f"layer{i}" for i in expected) and len(alone) == (CANDIDATES if expected else 0)


def test_all_candidates_are_kept_where_they_do_not_win_enough():
    assert set(choose({1: 0.02}, {}, 0.01)[0]) == set(list(RATIOS)[:CANDIDATES])


def choose(gains, costs, loss):
    """mIoU is 0.5 in float, 0.4 in int8, and each layer left float wins back its gain."""

    def miou(kept):
        return 0.5 if kept is None else 0.4 + sum(gains.get(int(name.removeprefix("layer")), 0.0) for name in kept)

    def progress(done, total):
        assert 0 < done <= total == CANDIDATES

    return choose_float_layers(RATIOS, {name: costs.get(int(name[5:]), 100.0) for name in RATIOS}, miou, loss, progress)
