from segslim.quantization.keep_float import JUDGED, choose

NOISY_FIRST = {f"layer{at}": float(at) for at in range(12)}
EQUAL = dict.fromkeys(NOISY_FIRST, 100.0)


def miou_of(gains):
    """0.5 in float, 0.4 in int8, and what each layer left float wins back of that."""
    return lambda kept: 0.5 if kept is None else 0.4 + sum(gains.get(weight, 0.0) for weight in kept)


def told(done, total):
    assert 0 < done <= total == JUDGED


def test_nothing_is_kept_where_nothing_is_lost():
    assert choose(NOISY_FIRST, EQUAL, miou_of({}), 0.2, told) == ((), {})


def test_the_fewest_layers_that_win_enough_are_kept_the_best_first():
    kept, alone = choose(NOISY_FIRST, EQUAL, miou_of({"layer1": 0.02, "layer4": 0.06, "layer6": 0.03}), 0.02, told)
    assert kept == ("layer4", "layer6") and len(alone) == JUDGED


def test_all_that_were_tried_are_kept_where_they_do_not_win_enough():
    assert len(choose(NOISY_FIRST, EQUAL, miou_of({"layer1": 0.02}), 0.01, told)[0]) == JUDGED


def test_of_layers_that_win_the_same_the_cheaper_is_kept():
    costs = {**EQUAL, "layer1": 1000.0, "layer4": 10.0}
    assert choose(NOISY_FIRST, costs, miou_of({"layer1": 0.08, "layer4": 0.08}), 0.03, told)[0] == ("layer4",)


def test_a_cheap_layer_that_the_dear_one_makes_needless_is_given_up():
    costs = {**EQUAL, "layer1": 10.0, "layer4": 1000.0}
    assert choose(NOISY_FIRST, costs, miou_of({"layer1": 0.01, "layer4": 0.09}), 0.01, told)[0] == ("layer4",)
