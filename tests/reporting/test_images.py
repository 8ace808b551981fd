import numpy as np

from segslim.reporting.images import CHANGED, GAINED, KINDS, LOST, difference, draw, errors

LABEL = np.array([[0, 1, 1, 2, 255]])


def test_a_change_is_lost_gained_or_wrong_both_times_and_counts_only_where_there_is_a_label():
    baseline = np.array([[0, 1, 0, 0, 0]])
    compressed = np.array([[0, 2, 1, 1, 1]])
    assert difference(baseline, compressed, LABEL, 255).tolist() == [[0, LOST, GAINED, CHANGED, 0]]


def test_two_networks_that_err_alike_do_not_differ():
    same = np.array([[2, 2, 2, 0, 0]])
    assert not difference(same, same, LABEL, 255).any()


def test_errors_of_a_network_alone_are_where_it_is_not_the_label():
    assert errors(np.array([[0, 2, 1, 0, 0]]), LABEL, 255).tolist() == [[0, LOST, 0, LOST, 0]]


def test_colours_lie_on_a_dark_and_grey_image():
    image = np.full((1, 2, 3), (200, 100, 0), np.uint8)
    drawn = draw(image, np.array([[0, GAINED]], np.uint8))
    assert drawn[0, 1].tolist() == list(KINDS["gained"])
    assert len(set(drawn[0, 0].tolist())) == 1 and drawn[0, 0, 0] < 100
