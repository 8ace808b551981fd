"""Small random networks that exercise every way in which channels meet. A recipe is a list of (kind, first map,
second map, number).
"""

from typing import Any

from hypothesis import strategies as st

from segslim.paddle_compat import import_paddle

paddle = import_paddle()

nn = paddle.nn
F = paddle.nn.functional
Recipe = list[tuple[str, int, int, int]]


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> Any:
    return nn.Sequential(
        nn.Conv2D(inputs, outputs, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2D(outputs),
        nn.LeakyReLU(0.2),
    )


class Conv(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = 2 * number
        self.conv = conv(a, 2 * number)

    def forward(self, x: Any, y: Any) -> Any:
        return self.conv(x)


class Depthwise(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a * (1 + number % 2)
        self.conv = conv(a, self.channels, groups=a)

    def forward(self, x: Any, y: Any) -> Any:
        return self.conv(x)


class Grouped(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = 2 * number
        self.conv = conv(a, 2 * number, groups=2)

    def forward(self, x: Any, y: Any) -> Any:
        return self.conv(x)


class Sum(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a
        self.project = nn.Identity() if a == b else conv(b, a, 1)
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.7))

    def forward(self, x: Any, y: Any) -> Any:
        return x + self.project(y) * self.scale


class Concat(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a + b

    def forward(self, x: Any, y: Any) -> Any:
        return paddle.concat([x, y], axis=1)


class Shuffle(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a

    def forward(self, x: Any, y: Any) -> Any:
        n, c, h, w = x.shape
        return x.reshape([n, 2, c // 2, h, w]).transpose([0, 2, 1, 3, 4]).reshape([0, -1, h, w])


class Swap(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a

    def forward(self, x: Any, y: Any) -> Any:
        left, right = paddle.split(x, 2, axis=1)
        return paddle.concat([right * 2, left], axis=1)


class Squeeze(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a
        self.gate = nn.Sequential(nn.Conv2D(a, number, 1), nn.LeakyReLU(), nn.Conv2D(number, a, 1), nn.Sigmoid())

    def forward(self, x: Any, y: Any) -> Any:
        return x * self.gate(x.mean([2, 3], keepdim=True))


class Attention(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = 2 * number
        self.query, self.key, self.value = nn.Linear(a, number), nn.Linear(b, number), nn.Linear(b, 2 * number)

    def forward(self, x: Any, y: Any) -> Any:
        n, _, h, w = x.shape
        x, y = x.flatten(2).transpose([0, 2, 1]), y.flatten(2).transpose([0, 2, 1])
        weights = F.softmax(paddle.matmul(self.query(x), self.key(y), transpose_y=True), axis=-1)
        return paddle.matmul(weights, self.value(y)).transpose([0, 2, 1]).reshape([n, self.channels, h, w])


class Transposed(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = 2 * number
        self.up = nn.Conv2DTranspose(a, 2 * number, 2, stride=2, groups=1 + number % 2)

    def forward(self, x: Any, y: Any) -> Any:
        return F.avg_pool2d(F.leaky_relu(self.up(x)), 2)


class Cut(nn.Layer):
    """A slice by a number: its channels must be pinned."""

    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = max(2, a // 4 * 2)
        self.prelu = nn.PReLU(a, 0.1)

    def forward(self, x: Any, y: Any) -> Any:
        return self.prelu(x)[:, : self.channels * 1]


class Normalized(nn.Layer):
    def __init__(self, a: int, b: int, number: int) -> None:
        super().__init__()
        self.channels = a
        self.norm = nn.LayerNorm(a)

    def forward(self, x: Any, y: Any) -> Any:
        return self.norm(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])


BINARY = ("Sum", "Concat", "Attention")
STEPS = {
    kind.__name__: kind
    for kind in (Conv, Depthwise, Grouped, Sum, Concat, Shuffle, Swap, Squeeze, Attention, Transposed, Cut, Normalized)
}


class RandomNetwork(nn.Layer):
    """Runs a recipe: each step reads two of the maps so far. The last map gives the output, every other unread one
    an auxiliary output.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        channels = [8]
        self.wiring: list[tuple[int, int]] = []
        self.steps = nn.LayerList()
        for kind, first, second, number in recipe:
            i, j = first % len(channels), second % len(channels)
            step = STEPS[kind](channels[i], channels[j], number)
            self.steps.append(step)
            self.wiring.append((i, j if kind in BINARY else i))
            channels.append(step.channels)
        read = {index for pair in self.wiring for index in pair}
        self.outputs = [len(recipe), *(index for index in range(len(recipe)) if index not in read)]
        self.heads = nn.LayerList([nn.Conv2D(channels[index], 2, 1) for index in self.outputs])

    def forward(self, image: Any) -> list[Any]:
        maps = [self.stem(image)]
        for (i, j), step in zip(self.wiring, self.steps, strict=True):
            maps.append(step(maps[i], maps[j]))
        logits = [head(maps[index]) for index, head in zip(self.outputs, self.heads, strict=True)]
        return logits if self.training else logits[:1]


recipes = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9), st.integers(2, 5)),
    min_size=2,
    max_size=7,
)
