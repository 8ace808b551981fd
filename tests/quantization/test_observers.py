import numpy as np
import pytest
from segslim.quantization.observers import BINS, OBSERVERS, Seen, noise, observe

from segslim.errors import UserError


def seen(array, images=1):
    """What `images` equal images of absolute values up to `top` give."""
    top = float(np.abs(array).max())
    counts = np.histogram(np.abs(array), BINS, (0, top))[0]
    return Seen(float(array.min()), (top,) * images, counts)


def gaussian():
    return np.random.default_rng(0).standard_normal(100_000)


def test_abs_max_clips_nothing():
    assert observe("abs_max", Seen(-1.0, (2.0, 3.0, 2.5)), 0) == (-3.0, 3.0)


def test_average_is_the_mean_of_the_images_largest_values():
    assert observe("avg", Seen(0.0, (2.0, 3.0, 4.0)), 0) == (0.0, 3.0)


def test_hist_leaves_a_share_of_the_values_out():
    values = np.linspace(0, 1, 1_000_001)
    assert observe("hist", seen(values), 0.9)[1] == pytest.approx(0.9, abs=1 / BINS)
    assert observe("hist", seen(gaussian()), 0.997)[1] == pytest.approx(2.97, abs=0.03)  # three deviations


def test_mse_finds_the_range_of_least_square_error():
    values = np.concatenate([gaussian(), [40.0]])  # one outlier that would cost ten times the steps
    low, high = observe("mse", seen(values), 0)
    errors = {}
    for share in np.arange(0.3, 1.001, 0.02):
        step = share * 40 / 127
        errors[share] = ((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2).sum()
    assert high == pytest.approx(40 * min(errors, key=errors.get)) and low == -high


def test_a_byte_that_is_enough_clips_nothing_by_any_error():
    levels = np.arange(256) / 255.0
    assert observe("mse", seen(levels), 0)[1] == pytest.approx(1.0)


def test_kl_ignores_a_far_outlier_that_abs_max_takes():
    values = np.concatenate([np.abs(gaussian()), [40.0]])
    assert observe("kl", seen(values), 0)[1] < 15 < observe("abs_max", seen(values), 0)[1]


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_stays_within_what_was_seen(name):
    low, high = observe(name, seen(gaussian()), 0.9999)
    assert 0 < high <= np.abs(gaussian()).max() and low == -high


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_tensor_that_was_always_zero_has_no_range(name):
    assert observe(name, Seen(0.0, (0.0,), np.zeros(BINS, np.int64)), 0.9999) == (0.0, 0.0)


def test_the_noise_of_a_uniform_byte_is_that_of_rounding():
    uniform = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    assert noise(seen(uniform), 1.0) == pytest.approx((1 / 255) ** 2 / 12 / (1 / 3), rel=0.05)


def test_an_unknown_observer_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"observer=median: should be one of abs_max, avg, hist, mse, emd, kl"):
        observe("median", seen(gaussian()), 0)
