from segslim.quantization.keep_float import JUDGED, choose

NOISY_FIRST = {f"layer{at}": float(at) for at in range(12)}


def miou_of(gains):
    """0.5 in float, 0.4 in int8, and what each layer left float wins back of that."""
    return lambda kept: 0.5 if kept is None else 0.4 + sum(gains.get(weight, 0.0) for weight in kept)


def told(done, total):
    assert 0 < done <= total == JUDGED


def test_nothing_is_kept_where_nothing_is_lost():
    assert choose(NOISY_FIRST, miou_of({}), 0.2, told) == ((), {})


def test_the_fewest_layers_that_win_enough_are_kept_the_best_first():
    kept, alone = choose(NOISY_FIRST, miou_of({"layer1": 0.02, "layer4": 0.06, "layer6": 0.03}), 0.02, told)
    assert kept == ("layer4", "layer6") and len(alone) == JUDGED


def test_all_that_were_tried_are_kept_where_they_do_not_win_enough():
    assert len(choose(NOISY_FIRST, miou_of({"layer1": 0.02}), 0.01, told)[0]) == JUDGED
