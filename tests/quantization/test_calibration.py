"""Statistics are those of the graph's tensors, and each observer picks the range that its definition says."""

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.quantization.calibration import (
    BINS,
    OBSERVERS,
    TensorStatistics,
    activation_ranges,
    check_image_count,
    collect_statistics,
    observed_range,
    relative_noise,
)
from tests.quantization.graphs import SIZE, image, measured_ranges, segmentation_network

GAUSSIAN = np.random.default_rng(0).standard_normal(100_000)


def statistics(array):
    """Of one image that holds `array`."""
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    return TensorStatistics(low, high, (max(-low, high),), np.histogram(array, BINS, (low, high))[0])


def test_the_ranges_are_those_of_the_tensors():
    collected = collect_statistics(segmentation_network(), [image()], threads=1, histogram=False)
    ranges, expected = activation_ranges(collected, "abs_max", 0), measured_ranges(segmentation_network())
    assert ranges.keys() == expected.keys()
    for name, (low, high) in expected.items():
        assert ranges[name] == pytest.approx((min(low, 0), max(high, 0)), rel=1e-6)


def test_the_histograms_count_every_value_of_every_image_in_a_second_pass():
    progress, images = [], [image(1), image(2)]
    collected = collect_statistics(segmentation_network(), images, 1, progress=lambda *runs: progress.append(runs))
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(len(each.image_maxima) == 2 and len(each.counts) == BINS for each in collected.values())
    assert collected["x"].counts.sum() == 2 * np.prod(SIZE)
    both = np.concatenate(images)
    expected = np.histogram(both, BINS, (both.min(), both.max()))[0]
    assert np.abs(collected["x"].counts.cumsum() - expected.cumsum()).max() <= 5  # float32 at the edges of bins


def test_abs_max_clips_nothing():
    assert observed_range("abs_max", TensorStatistics(-1.0, 3.0, (2.0, 3.0, 2.5)), 0) == (-1.0, 3.0)
    assert observed_range("abs_max", TensorStatistics(-3.0, 2.0, (2.0, 3.0, 2.5)), 0) == (-3.0, 2.0)


def test_average_is_as_far_as_the_mean_of_the_images_largest_values():
    assert observed_range("avg", TensorStatistics(-5.0, 1.0, (3.0, 5.0, 4.0)), 0) == (-4.0, 1.0)


def test_hist_leaves_a_share_of_the_values_out():
    assert observed_range("hist", statistics(np.linspace(0, 1, 1_000_001)), 0.9)[1] == pytest.approx(0.9, abs=1 / BINS)
    assert observed_range("hist", statistics(GAUSSIAN), 0.9973)[1] == pytest.approx(3, abs=0.05)  # three deviations


@pytest.mark.parametrize("far", [[40.0], [-40.0], [40.0, -9.0]])
def test_mse_finds_the_range_of_least_square_error(far):
    values = np.concatenate([GAUSSIAN, far])  # outliers, one of which would make the steps ten times coarser

    def error(low, high):
        step = (high - low) / 255
        zero = np.round(-low / step)
        return ((values - (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step) ** 2).sum()

    shares = np.arange(0.3, 1.001, 0.02)
    least = min(error(a * values.min(), b * values.max()) for a in shares for b in shares)
    assert error(*observed_range("mse", statistics(values), 0)) <= 1.01 * least


def test_mse_clips_nothing_of_values_that_are_steps_of_a_byte():
    assert observed_range("mse", statistics(np.arange(256) / 255.0), 0)[1] == pytest.approx(1.0)


def test_kl_ignores_a_far_outlier_that_abs_max_takes():
    outlier = statistics(np.concatenate([np.abs(GAUSSIAN), [40.0]]))
    assert observed_range("kl", outlier, 0)[1] < 15 < observed_range("abs_max", outlier, 0)[1]


@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_observer_stays_within_the_values_and_takes_a_tensor_of_zeros(observer):
    low, high = observed_range(observer, statistics(GAUSSIAN), 0.9999)
    assert GAUSSIAN.min() <= low < 0 < high <= GAUSSIAN.max()
    zeros = TensorStatistics(0.0, 0.0, (0.0,), np.zeros(BINS, np.int64))
    assert observed_range(observer, zeros, 0.9999) == (0.0, 0.0)


def test_the_noise_of_a_uniform_byte_is_that_of_rounding():
    uniform = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    assert relative_noise(statistics(uniform), (0.0, 1.0)) == pytest.approx((1 / 255) ** 2 / 12 / (1 / 3), rel=0.05)


def test_an_unknown_observer_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"observer=median.*abs_max, avg, hist, mse, emd, kl"):
        observed_range("median", statistics(GAUSSIAN), 0)


def test_too_few_images_are_refused():
    check_image_count(4)
    with pytest.raises(UserError, match=r"3 training images.*at least 4"):
        check_image_count(3)
