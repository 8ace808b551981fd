"""What stands in for PaddleSeg's own where networks sample their maps: along a flow, by attention, at points."""

import numpy as np
import pytest

from segslim.paddle_compat import import_paddle, import_paddleseg

paddle = import_paddle()
AlignedModule = import_paddleseg().models.sfnet.AlignedModule
FEATURES = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)


def warped(flow: np.ndarray) -> np.ndarray:
    module = AlignedModule(3, 3)
    size = paddle.shape(paddle.to_tensor(FEATURES))[2:]
    return module.flow_warp(paddle.to_tensor(FEATURES), paddle.to_tensor(flow), size=size).numpy()


@pytest.mark.parametrize("axis", [0, 1], ids=["along the rows", "down the columns"])
def test_features_move_by_the_flow(axis: int) -> None:
    """The grid runs from -1 to 1, so that one pixel of `size` is 2 / (size - 1), and the flow is divided by `size`."""
    flow = np.zeros((2, 2, 4, 6), np.float32)
    np.testing.assert_allclose(warped(flow), FEATURES, atol=1e-5)
    size = (6, 4)[axis]
    flow[:, axis] = 2 * size / (size - 1)
    moved = np.roll(FEATURES, -1, axis=3 - axis)
    inside = np.s_[..., :-1] if axis == 0 else np.s_[..., :-1, :]
    np.testing.assert_allclose(warped(flow)[inside], moved[inside], atol=1e-5)


@pytest.mark.skipif(not paddle.__version__.startswith("2."), reason="PaddleSeg's own runs on Paddle 2 only")
def test_it_is_paddlesegs_own() -> None:
    flow = np.random.default_rng(1).standard_normal((2, 2, 4, 6)).astype(np.float32)
    module, size = AlignedModule(3, 3), paddle.shape(paddle.to_tensor(FEATURES))[2:]
    original = AlignedModule.flow_warp.__wrapped__(module, paddle.to_tensor(FEATURES), paddle.to_tensor(flow), size)
    np.testing.assert_allclose(warped(flow), original.numpy(), atol=1e-5)


def bilinear(values: np.ndarray, across: float, down: float) -> np.ndarray:
    """Of a map H,W,C at a place in 0..1 of it, beyond which there are zeros."""
    height, width, channels = values.shape
    row, column, total = down * height - 0.5, across * width - 0.5, np.zeros(channels)
    for y in (int(np.floor(row)), int(np.floor(row)) + 1):
        for x in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= y < height and 0 <= x < width:
                total += (1 - abs(row - y)) * (1 - abs(column - x)) * values[y, x]
    return total


def test_deformable_attention_is_the_weighted_sum_of_what_its_points_see() -> None:
    """Zhu et al., Deformable DETR, ICLR 2021 (arXiv:2010.04159), equation 3, one query after the other."""
    backbones = import_paddleseg().models.backbones.vit_adapter
    random = np.random.default_rng(0)
    image = paddle.to_tensor(random.standard_normal((1, 3, 32, 64)).astype(np.float32))
    (points, sizes, _), _ = backbones.deform_inputs(image)
    assert sizes == [(4, 8), (2, 4), (1, 2)]
    np.testing.assert_allclose(points[0, :3, 0].numpy(), [[0.125, 0.25], [0.375, 0.25], [0.625, 0.25]])
    layer = backbones.MSDeformAttn(d_model=12, n_levels=3, n_heads=2, n_points=4)
    for parameter in layer.parameters():
        parameter.set_value(random.standard_normal(parameter.shape).astype(np.float32))
    query, maps = (paddle.to_tensor(random.standard_normal((2, n, 12)).astype(np.float32)) for n in (8, 42))
    found = layer(query, points, maps, sizes, None).numpy()

    values = layer.value_proj(maps).numpy().reshape(2, 42, 2, 6)
    offsets = layer.sampling_offsets(query).numpy().reshape(2, 8, 2, 3, 4, 2)
    weights = paddle.nn.functional.softmax(layer.attention_weights(query).reshape([2, 8, 2, 12])).numpy()
    for batch, at in ((0, 0), (1, 5)):
        heads = np.zeros((2, 6))
        for head in range(2):
            for level, start in enumerate((0, 32, 40)):
                height, width = sizes[level]
                own = values[batch, start : start + height * width, head].reshape(height, width, 6)
                for point in range(4):
                    x, y = points[0, at, 0].numpy() + offsets[batch, at, head, level, point] / (width, height)
                    heads[head] += weights[batch, at, head, 4 * level + point] * bilinear(own, x, y)
        wanted = layer.output_proj(paddle.to_tensor(heads.reshape(1, 12).astype(np.float32))).numpy()[0]
        np.testing.assert_allclose(found[batch, at], wanted, atol=1e-4)


def test_points_to_refine_are_the_least_certain_pixels() -> None:
    head = import_paddleseg().models.pointrend.PointHead(num_classes=2, in_channels=[4], subdivision_num_points=2)
    certain = paddle.to_tensor(np.array([[[[5, 1, 9], [2, 7, 6]]]], np.float32))
    indices, places = head.get_points_test(certain, lambda logits: -logits)
    assert sorted(indices.numpy()[0].tolist()) == [1, 3]
    wanted = {1: (0.5, 0.25), 3: (1 / 6, 0.75)}  # (x, y)
    np.testing.assert_allclose(places.numpy()[0], [wanted[at] for at in indices.numpy()[0].tolist()], rtol=1e-6)
