"""Small random networks that exercise every way in which channels meet. A recipe is a list of (kind, first map,
second map, number).
"""

from collections.abc import Callable
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


class Step(nn.Layer):
    """A function of itself and two maps, with the layers that it uses. `channels` is the number of its output's."""

    def __init__(self, channels: int, function: Any, **layers: Any) -> None:
        super().__init__()
        self.channels, self.function = channels, function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Any, y: Any) -> Any:
        return self.function(self, x, y)


def one_conv(inputs: int, outputs: int, groups: int = 1) -> Step:
    return Step(outputs, lambda step, x, y: step.conv(x), conv=conv(inputs, outputs, groups=groups))


def weighted_sum(a: int, b: int, number: int) -> Step:
    project = nn.Identity() if a == b else conv(b, a, 1)
    scale = paddle.create_parameter([1], "float32", default_initializer=nn.initializer.Constant(0.7))
    return Step(a, lambda step, x, y: x + step.project(y) * step.scale, project=project, scale=scale)


def shuffle(step: Step, x: Any, y: Any) -> Any:
    n, c, h, w = x.shape
    return x.reshape([n, 2, c // 2, h, w]).transpose([0, 2, 1, 3, 4]).reshape([0, -1, h, w])


def swap(step: Step, x: Any, y: Any) -> Any:
    left, right = paddle.split(x, 2, axis=1)
    return paddle.concat([right * 2, left], axis=1)


def squeeze(a: int, b: int, number: int) -> Step:
    gate = nn.Sequential(nn.Conv2D(a, number, 1), nn.LeakyReLU(), nn.Conv2D(number, a, 1), nn.Sigmoid())
    return Step(a, lambda step, x, y: x * step.gate(x.mean([2, 3], keepdim=True)), gate=gate)


def attention(a: int, b: int, number: int) -> Step:
    def attend(step: Step, x: Any, y: Any) -> Any:
        n, _, h, w = x.shape
        x, y = x.flatten(2).transpose([0, 2, 1]), y.flatten(2).transpose([0, 2, 1])
        weights = F.softmax(paddle.matmul(step.query(x), step.key(y), transpose_y=True), axis=-1)
        return paddle.matmul(weights, step.value(y)).transpose([0, 2, 1]).reshape([n, step.channels, h, w])

    query, key, value = nn.Linear(a, number), nn.Linear(b, number), nn.Linear(b, 2 * number)
    return Step(2 * number, attend, query=query, key=key, value=value)


def transposed(a: int, b: int, number: int) -> Step:
    up = nn.Conv2DTranspose(a, 2 * number, 2, stride=2, groups=1 + number % 2)
    return Step(2 * number, lambda step, x, y: F.avg_pool2d(F.leaky_relu(step.up(x)), 2), up=up)


def cut(a: int, b: int, number: int) -> Step:
    """A slice by a number: its channels must be pinned."""
    cut = max(2, a // 4 * 2)
    return Step(cut, lambda step, x, y: step.prelu(x)[:, : step.channels * 1], prelu=nn.PReLU(a, 0.1))


def normalized(a: int, b: int, number: int) -> Step:
    norm = nn.LayerNorm(a)
    return Step(a, lambda step, x, y: step.norm(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2]), norm=norm)


BINARY = ("Sum", "Concat", "Attention")
#: Each makes a step from the channels of the two maps that it reads, and a number.
STEPS: dict[str, Callable[[int, int, int], Step]] = {
    "Conv": lambda a, b, number: one_conv(a, 2 * number),
    "Depthwise": lambda a, b, number: one_conv(a, a * (1 + number % 2), groups=a),
    "Grouped": lambda a, b, number: one_conv(a, 2 * number, groups=2),
    "Sum": weighted_sum,
    "Concat": lambda a, b, number: Step(a + b, lambda step, x, y: paddle.concat([x, y], axis=1)),
    "Shuffle": lambda a, b, number: Step(a, shuffle),
    "Swap": lambda a, b, number: Step(a, swap),
    "Squeeze": squeeze,
    "Attention": attention,
    "Transposed": transposed,
    "Cut": cut,
    "Normalized": normalized,
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
