import numpy as np
import pytest
from segslim.quantization.calibrate import ranges, watch
from segslim.quantization.layers import signal_to_noise, weight_noise

from tests.quantization.graphs import image, segmentation_network


def test_the_layer_whose_input_has_an_outlier_comes_first():
    model, picture = segmentation_network(), image()
    picture[0, 0, 0, 0] = 500.0
    seen = watch(model, [picture], 1)
    ratios = signal_to_noise(model, seen, ranges(seen, "abs_max", 0))
    assert next(iter(ratios)) == "stem.w" and list(ratios.values()) == sorted(ratios.values())
    assert set(ratios) == {"stem.w", "depthwise.w", "deep.w", "gate.w", "head.w", "logits.w"}


def test_the_noise_of_a_weight_is_that_of_rounding():
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 100_000)).astype(np.float32)
    assert weight_noise(weight, 0) == pytest.approx((1 / 127) ** 2 / 12 / (1 / 3), rel=0.05)
    assert weight_noise(np.zeros((2, 3), np.float32), 0) == 0
