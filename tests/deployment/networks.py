"""Networks to export: small ones with what converts badly, and PaddleSeg's, untrained."""

from collections.abc import Callable
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle, import_paddleseg

paddle = import_paddle()
nn = paddle.nn
models = import_paddleseg().models


class TinyNetwork(nn.Layer):  # type: ignore[name-defined]
    """Convolution, batch norm, pooling to `bins`, and an auxiliary head in training mode; returns a list of logits."""

    def __init__(self, *layers: Any, bins: int = 3, num_classes: int = 3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 8, 3, stride=2, padding=1), nn.BatchNorm2D(8), *layers)
        self.pool = nn.AdaptiveAvgPool2D(bins)
        self.head = nn.Conv2D(16, num_classes, 1, bias_attr=False)
        self.auxiliary_head = nn.Conv2D(8, num_classes, 1)

    def forward(self, x: Any) -> list[Any]:
        features = self.stem(x)
        pooled = nn.functional.interpolate(self.pool(features), paddle.shape(features)[2:], mode="bilinear")
        logits = self.head(paddle.concat([features, pooled], axis=1))
        logits = nn.functional.interpolate(logits, paddle.shape(x)[2:], mode="bilinear")
        return [logits, self.auxiliary_head(features)] if self.training else [logits]


class Branch(nn.Layer):  # type: ignore[name-defined]
    """Control flow that depends on a tensor."""

    def forward(self, x: Any) -> Any:
        if paddle.mean(x) > 1e9:
            x = x * 100
        return x


NETWORKS: dict[str, Callable[[], Any]] = {
    "fast_scnn": lambda: models.FastSCNN(num_classes=2),
    "bisenetv2": lambda: models.BiSeNetV2(num_classes=2),
    "pspnet": lambda: models.PSPNet(2, models.ResNet18_vd(), backbone_indices=(2, 3)),
    "unet": lambda: models.UNet(num_classes=2),
    "hardnet": lambda: models.HarDNet(num_classes=2),
    "fcn_hrnet": lambda: models.FCN(2, models.HRNet_W18_Small_V1(), backbone_indices=(-1,)),
}


def build(name: str) -> Any:
    paddle.seed(0)
    return NETWORKS[name]()


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def logits_of(network: Any, images: np.ndarray) -> np.ndarray:
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(images))[0].numpy()


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
