"""Small networks whose numbers can be counted by hand."""

from itertools import pairwise
from typing import Any

from segslim.paddle_compat import import_paddle

paddle = import_paddle()
nn = paddle.nn
F = paddle.nn.functional


class Chain(nn.Layer):
    """3 -> 8 -> (depthwise, multiplier 2) 16 -> 4, and an auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2D(3, 8, 3, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(8)
        self.depthwise = nn.Conv2D(8, 16, 3, padding=1, groups=8)
        self.last = nn.Conv2D(16, 4, 1)
        self.auxiliary = nn.Conv2D(8, 4, 1)

    def forward(self, image: Any) -> list[Any]:
        x = nn.functional.relu(self.norm(self.first(image)))
        logits = [self.last(self.depthwise(x))]
        return [*logits, self.auxiliary(x)] if self.training else logits


class Mixer(nn.Layer):
    """A linear layer over 8 channels of 8 x 8 positions, and a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 1)
        self.linear = nn.Linear(8, 6)

    def forward(self, image: Any) -> Any:
        x = self.linear(self.conv(image).flatten(2).transpose([0, 2, 1]))
        return paddle.matmul(x, x, transpose_y=True)


class Custom(nn.Layer):
    """One operator between two convolutions."""

    def __init__(self, operator: Any, channels: int = 8) -> None:
        super().__init__()
        self.before, self.operator, self.after = nn.Conv2D(3, 8, 1), operator, nn.Conv2D(channels, 4, 1)

    def forward(self, image: Any) -> Any:
        return self.after(self.operator(self.before(image)))


class Tower(nn.Layer):
    """3 -> 16 -> 32 -> 16 -> classes, without batch norm, so that a filter of zeros makes a channel of zeros; three
    groups of channels whose FLOPs differ.
    """

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2D(3, 16, 3, padding=1, bias_attr=False)
        self.second = nn.Conv2D(16, 32, 3, padding=1, bias_attr=False)
        self.third = nn.Conv2D(32, 16, 3, padding=1, bias_attr=False)
        self.head = nn.Conv2D(16, num_classes, 1)

    def forward(self, image: Any) -> list[Any]:
        for conv in (self.first, self.second, self.third):
            image = F.relu(conv(image))
        return [self.head(image)]


class Small(nn.Layer):
    """3 -> 16 -> 32 -> 16 -> classes at half the size, with batch norm: what trains, prunes and exports in a second."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        widths = [3, 16, 32, 16]
        self.convs = nn.LayerList(
            nn.Conv2D(a, b, 3, stride=2 if a == 3 else 1, padding=1, bias_attr=False) for a, b in pairwise(widths)
        )
        self.norms = nn.LayerList(nn.BatchNorm2D(width) for width in widths[1:])
        self.head = nn.Conv2D(16, num_classes, 1)

    def forward(self, image: Any) -> list[Any]:
        size = image.shape[2:]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            image = F.relu(norm(conv(image)))
        return [F.interpolate(self.head(image), size, mode="bilinear")]


class EvenSizes(Tower):
    """Halves the image and doubles it again, and so takes even sizes alone."""

    def forward(self, image: Any) -> list[Any]:
        doubled = nn.functional.interpolate(nn.functional.max_pool2d(image, 2), scale_factor=2)
        return Tower.forward(self, image + doubled)


class OneSize(Tower):
    """Takes images of 64 x 64 alone, for the sake of a linear layer over all positions."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(num_classes)
        self.places = nn.Linear(64 * 64, 64 * 64, bias_attr=False)

    def forward(self, image: Any) -> list[Any]:
        (logits,) = Tower.forward(self, image)  # Paddle 2.6 translates no super()
        return [self.places(logits.flatten(2)).reshape(logits.shape)]
