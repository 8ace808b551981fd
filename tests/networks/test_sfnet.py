"""SFNet's sampling along a flow, which stands in for PaddleSeg's own."""

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
