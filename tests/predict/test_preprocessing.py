"""Every transform gives what PaddleSeg's gives, to the bit, and is undone as PaddleSeg undoes it."""

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.evaluation.metrics import restore
from segslim.paddle_compat import import_paddleseg
from segslim.predict.preprocessing import TRANSFORMS, Normalize, Resize, apply, transform_from_node

import_paddleseg()

from paddleseg.core.infer import reverse_transform  # noqa: E402
from paddleseg.cvlibs import manager  # noqa: E402
from paddleseg.transforms import Compose  # noqa: E402

SIZES = [(64, 48), (48, 64), (33, 71), (100, 7), (1, 1), (200, 150)]  # width, height

CHAINS = {
    "nothing": [],
    "normalize": [{"type": "Normalize"}],
    "normalize each channel": [{"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}],
    "normalize by one number": [{"type": "Normalize", "mean": [0.3], "std": [0.2]}],
    "resize": [{"type": "Resize", "target_size": [80, 40]}, {"type": "Normalize"}],
    "resize by default": [{"type": "Resize"}],
    **{
        f"resize {interp}": [{"type": "Resize", "target_size": [50, 90], "interp": interp}]
        for interp in ("NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4")
    },
    "keep ratio": [{"type": "Resize", "target_size": [160, 90], "keep_ratio": True}],
    "keep ratio, divisor": [{"type": "Resize", "target_size": [160, 90], "keep_ratio": True, "size_divisor": 32}],
    "divisor": [{"type": "Resize", "target_size": [70, 30], "size_divisor": 16}],
    "long": [{"type": "ResizeByLong", "long_size": 77}],
    "short": [{"type": "ResizeByShort", "short_size": 35}],
    "short, limited": [{"type": "ResizeByShort", "short_size": 35, "max_size": 50}],
    "limit long": [{"type": "LimitLong", "max_long": 60, "min_long": 50}],
    "limit long above": [{"type": "LimitLong", "max_long": 60}],
    "limit long below": [{"type": "LimitLong", "min_long": 90}],
    "padding": [{"type": "Padding", "target_size": [256, 200]}, {"type": "Normalize"}],
    "padding after normalize": [
        {"type": "Normalize"},
        {"type": "Padding", "target_size": [256, 200], "im_padding_value": 0.25, "label_padding_value": 0},
    ],
    "aspect ratio": [{"type": "PaddingByAspectRatio", "aspect_ratio": 1.5}],
    "wide aspect ratio": [{"type": "PaddingByAspectRatio", "aspect_ratio": 3, "im_padding_value": 9}],
    "all": [
        {"type": "ResizeByLong", "long_size": 120},
        {"type": "LimitLong", "max_long": 100},
        {"type": "PaddingByAspectRatio"},
        {"type": "Padding", "target_size": [128, 128]},
        {"type": "Resize", "target_size": [64, 64]},
        {"type": "Normalize"},
    ],
}


def noise(width, height):
    return np.random.default_rng(width + height).integers(0, 256, (height, width, 3), np.uint8)


def ours(chain):
    return [transform_from_node(node, "transforms[0]") for node in chain]


def theirs(chain):
    made = []
    for node in chain:
        options = {key: value for key, value in node.items() if key != "type"}
        made.append(manager.TRANSFORMS[node["type"]](**options))
    return Compose(made)


def takes(chain, width, height):
    """Not where PaddleSeg itself fails: a side of no pixel."""
    try:
        apply(ours(chain), noise(width, height))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_network_gets_what_paddleseg_gives_it_to_the_bit(chain):
    compared = [size for size in SIZES if takes(chain, *size)]
    assert len(compared) >= 4
    for width, height in compared:
        image = noise(width, height)
        expected = theirs(chain)({"img": image[..., ::-1].astype(np.float32)})["img"]  # read by OpenCV: BGR
        prepared, _ = apply(ours(chain), image)
        assert prepared.dtype == np.float32 and prepared.shape == (1, *expected.shape)
        assert np.array_equal(prepared[0], expected.astype(np.float32))


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_the_network_sees_comes_back_at_the_size_of_the_image(chain):
    for width, height in SIZES:
        if takes(chain, width, height):
            prepared, steps = apply(ours(chain), noise(width, height))
            assert restore(np.zeros(prepared.shape[2:], np.uint8), steps).shape == (height, width)


@pytest.mark.parametrize("name", ["padding", "padding after normalize", "aspect ratio", "wide aspect ratio"])
def test_padding_is_undone_as_paddleseg_undoes_it(name):
    import paddle

    data = theirs(CHAINS[name])({"img": noise(33, 71).astype(np.float32)})
    prepared, steps = apply(ours(CHAINS[name]), noise(33, 71))
    ids = np.random.default_rng(0).integers(0, 9, prepared.shape[2:]).astype(np.uint8)
    there = reverse_transform(
        paddle.to_tensor(ids[np.newaxis, np.newaxis].astype(np.float32)), data["trans_info"], "nearest"
    )
    assert np.array_equal(restore(ids, steps), there.numpy()[0, 0].astype(np.uint8))


def test_an_image_after_another_is_treated_alike():
    """PaddleSeg's ResizeByShort remembers what a long image did to its size."""
    (transform,) = ours([{"type": "ResizeByShort", "short_size": 40, "max_size": 60}])
    alone = transform(noise(40, 40).astype(np.float32)).shape
    transform(noise(200, 40).astype(np.float32))
    assert transform(noise(40, 40).astype(np.float32)).shape == alone


RANDOM = sorted(set(manager.TRANSFORMS.components_dict) - set(TRANSFORMS))


@pytest.mark.parametrize("kind", RANDOM)
def test_every_other_transform_from_node_paddleseg_is_refused_by_name(kind):
    with pytest.raises(UserError, match=rf"transforms\[2\]: the transform '{kind}' is not among .*Resize, .*Padding"):
        transform_from_node({"type": kind}, "deploy.yaml: transforms[2]")


WRONG = {
    "no type": {"target_size": [1, 1]},
    "type of another kind": {"type": ["Resize"]},
    "python": {"type": "os.system"},
    "unknown option": {"type": "Resize", "target": [8, 8]},
    "one side": {"type": "Resize", "target_size": [8]},
    "a word": {"type": "Resize", "target_size": "large"},
    "no pixel": {"type": "Resize", "target_size": [0, 8]},
    "too many pixels": {"type": "Resize", "target_size": [1 << 20, 8]},
    "random interpolation": {"type": "Resize", "interp": "RANDOM"},
    "infinite divisor": {"type": "Resize", "size_divisor": float("inf")},
    "missing": {"type": "ResizeByLong"},
    "a choice at random": {"type": "ResizeByShort", "short_size": [10, 20]},
    "division by zero": {"type": "Normalize", "std": [0.5, 0, 0.5]},
    "not a number": {"type": "Normalize", "mean": [float("nan")]},
    "limits crossed": {"type": "LimitLong", "max_long": 5, "min_long": 6},
    "negative ratio": {"type": "PaddingByAspectRatio", "aspect_ratio": -1},
    "key of another kind": {"type": "Resize", 3: 4},
}


@pytest.mark.parametrize("node", WRONG.values(), ids=WRONG)
def test_a_bad_value_is_one_line_that_names_where_it_stands(node):
    with pytest.raises(UserError) as error:
        transform_from_node(node, "deploy.yaml: transforms[1]")
    assert str(error.value).startswith("deploy.yaml: transforms[1]") and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "Padding", "target_size": [10, 10]}, "20 x 30 pixels are too many to be padded to 10 x 10"),
        ({"type": "PaddingByAspectRatio", "aspect_ratio": 1e9}, "which no network takes"),
    ],
)
def test_an_image_that_a_transform_cannot_take_is_named(node, words):
    with pytest.raises(UserError, match=words):
        apply(ours([node]), noise(20, 30))


def test_a_mean_for_other_channels_than_the_image_has_is_refused():
    with pytest.raises(UserError, match=r"mean of 3 .* 6 channels"):
        apply([Normalize((0.5,) * 3, (0.5,) * 3)], np.zeros((8, 8, 6), np.uint8))
    prepared, _ = apply([Resize((4, 4)), Normalize((0.5,) * 6, (0.5,) * 6)], np.zeros((8, 8, 6), np.uint8))
    assert prepared.shape == (1, 6, 4, 4)
    assert apply([Resize((4, 4))], np.zeros((8, 8, 1), np.uint8))[0].shape == (1, 1, 4, 4)
