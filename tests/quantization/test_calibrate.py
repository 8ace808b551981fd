import numpy as np
from segslim.quantization.calibrate import ranges, watch
from segslim.quantization.observers import BINS

from tests.quantization.graphs import SIZE, image, measured_ranges, segmentation_network


def test_the_ranges_are_those_of_the_tensors():
    seen = watch(segmentation_network(), [image()], threads=1, histogram=False)
    found, expected = ranges(seen, "abs_max", 0), measured_ranges(segmentation_network())
    assert found.keys() == expected.keys()
    for name, (low, high) in expected.items():
        np.testing.assert_allclose(found[name][1], max(-low, high), rtol=1e-6)
        assert (found[name][0] == 0) == (low >= 0)


def test_the_histograms_count_every_value_of_every_image():
    seen = watch(segmentation_network(), [image(1), image(2)], threads=1)
    assert all(len(of.largest) == 2 and len(of.counts) == BINS for of in seen.values())
    assert seen["x"].counts.sum() == 2 * np.prod(SIZE)


def test_the_progress_counts_both_passes():
    told = []
    watch(segmentation_network(), [image(1), image(2)], 1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
