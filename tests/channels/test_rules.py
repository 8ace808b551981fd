"""One operator at a time between two convolutions: its channels are pruned rightly, or not at all."""

import numpy as np
import pytest

from segslim.channels import ChannelGraph
from tests.channels.proof import calibrate, in_float64, prove, random_kept
from tests.channels.small import Custom, F, nn, paddle

SHAPE = (1, 3, 8, 8)


def attention(x):
    pixels = x.flatten(2)
    return paddle.bmm(pixels, F.softmax(paddle.bmm(pixels.transpose([0, 2, 1]), pixels), -1)).unsqueeze(3)


def heads(x):
    folded = x.reshape([0, -1, 4, 64])  # channels of two heads
    scores = F.softmax(paddle.matmul(folded, folded, transpose_y=True), -1)
    return paddle.matmul(scores, folded).reshape([0, -1, 8, 8])


PRUNABLE = {
    "softmax along the image": (nn.Softmax(axis=3), 8),
    "slice of the image": (lambda x: x[:, :, 1:5], 8),
    "mean over the image": (lambda x: x.mean([2, 3], keepdim=True), 8),
    "reshape by 0 and -1": (lambda x: x.reshape([0, 0, 64]).reshape([1, -1, 8, 8]), 8),
    "reshape by sizes": (lambda x: x.reshape([x.shape[0], x.shape[1], 64]).reshape(paddle.shape(x)), 8),
    "flatten and unflatten": (lambda x: x.flatten(1).reshape([1, -1, 8, 8]), 8),
    "fold by a fraction of a size": (lambda x: x.reshape([1, 2, x.shape[1] // 2, 8, 8]).mean(1), 4),
    "arithmetic with the size of the image": (lambda x: x * (x.shape[2] / 4.0), 8),
    "one number": (lambda x: x + paddle.ones([1]), 8),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
    "pixel unshuffle": (nn.PixelUnshuffle(2), 32),
    "channel shuffle": (nn.ChannelShuffle(2), 8),
    "concat along the image": (lambda x: paddle.concat([x, x * 2], axis=2), 8),
    "stack": (lambda x: paddle.stack([x, x * 2], axis=0).sum(0), 8),
    "sum of three": (lambda x: paddle.add_n([x, x * 2, x * x]), 8),
    "chunks": (lambda x: paddle.concat(paddle.chunk(x, 4, axis=1)[::-1], axis=1), 8),
    "padding": (lambda x: F.pad(x, [1, 1, 1, 1]), 8),
    "tile": (lambda x: paddle.tile(x, [1, 2, 1, 1]), 16),
    "unsqueeze and squeeze": (lambda x: x.unsqueeze(1).squeeze(1), 8),
    "a gate": (lambda x: x * F.sigmoid(x.max([2, 3], keepdim=True)), 8),
    "expansion to another's shape": (lambda x: x + x.mean([2, 3], keepdim=True).expand_as(x), 8),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 8),
    "numbers of places along the image": (lambda x: paddle.gather(x, paddle.to_tensor([0, 2, 4]), axis=3), 8),
    "grid sampling": (lambda x: F.grid_sample(x, paddle.zeros([1, 8, 8, 2], x.dtype)), 8),
    "unpooling": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_mask=True), 2), 8),
    "a product of activations": (attention, 8),
    "adaptive pooling to more cells than there are": (lambda x: F.adaptive_max_pool2d(x, 16), 8),
    "a known range": (lambda x: x + paddle.linspace(-1.0, 1.0, x.shape[2]).astype(x.dtype).unsqueeze(0), 8),
    "a range of unknown length": (
        lambda x: x + paddle.arange(0, paddle.to_tensor(8), 1, dtype="int64").astype(x.dtype).reshape([-1, 1]),
        8,
    ),
    "sizes as tensors": (
        lambda x: paddle.divide(x, paddle.sqrt((paddle.shape(x)[2] * paddle.shape(x)[3]).astype(x.dtype))),
        8,
    ),
    "a size that is rounded": (
        lambda x: F.pad(x, [0, int(paddle.ceil(paddle.shape(x)[3] / 3).astype("int32") * 3 - x.shape[3]), 0, 0]),
        8,
    ),
    "joined sizes": (
        lambda x: x.reshape(paddle.concat([paddle.shape(x)[:2], paddle.shape(x)[2].unsqueeze(0) * 8])).unsqueeze(3),
        8,
    ),
    "the smaller size": (lambda x: x[:, :, : paddle.minimum(paddle.shape(x)[2], paddle.shape(x)[3]) // 2], 8),
    "a grouped convolution": (nn.Conv2D(8, 12, 3, padding=1, groups=2), 12),
    "a grouped convolution that widens": (nn.Conv2D(8, 24, 3, groups=4), 24),
    "a grouped transposed convolution": (nn.Conv2DTranspose(8, 12, 2, stride=2, groups=4), 12),
    "heads of an attention": (heads, 8),
    "the other layout": (
        lambda x: F.avg_pool2d(x.transpose([0, 2, 3, 1]), 2, data_format="NHWC").transpose([0, 3, 1, 2]),
        8,
    ),
}

PINNED = {
    "softmax over channels": (nn.Softmax(axis=1), 8),
    "mean over channels": (lambda x: x.mean(1, keepdim=True), 1),
    "slice of the channels": (lambda x: x[:, :4], 4),
    "split by numbers": (lambda x: paddle.split(x, [2, 6], axis=1)[1], 6),
    "reshape by numbers": (lambda x: x.reshape([1, 8, 64]).reshape([1, 8, 8, 8]), 8),
    "arithmetic with their number": (lambda x: x * x.shape[1] ** -0.5, 8),
    "a constant of each": (lambda x: x + paddle.ones([1, 8, 1, 1], x.dtype), 8),
    "a convolution by a computed filter": (
        lambda x: F.conv2d(paddle.ones([1, 8, 8, 8], x.dtype), x.mean([2, 3], keepdim=True)),
        1,
    ),
    "a product with a constant": (lambda x: paddle.matmul(paddle.ones([8, 8], x.dtype), x.flatten(2)).unsqueeze(3), 8),
    "pooling over channels": (lambda x: F.max_pool3d(x.unsqueeze(1), (3, 1, 1), 1, (1, 0, 0)).squeeze(1), 8),
    "interpolation over channels": (
        lambda x: F.interpolate(x.transpose([0, 2, 1, 3]), [8, 8]).transpose([0, 2, 1, 3]),
        8,
    ),
    "an operator with lists of results": (lambda x: paddle.einsum("nchw,ndhw->ncd", x, x).unsqueeze(3), 8),
    "a list taken apart": (lambda x: paddle.stack(paddle.unbind(x, axis=2), axis=2), 8),
    "group norm": (nn.GroupNorm(2, 8), 8),
    "expansion by numbers": (lambda x: x.mean(1, keepdim=True).expand([1, 8, 8, 8]), 8),
    "expansion by numbers, their own among them": (lambda x: x.mean([2, 3], keepdim=True).expand([1, 8, 8, 8]), 8),
}


@pytest.mark.parametrize("name", PRUNABLE)
def test_channels_on_both_sides_of_an_operator_go_together(name):
    paddle.seed(0)
    network = Custom(*PRUNABLE[name])
    graph = ChannelGraph.trace(network, SHAPE)
    kept = random_kept(graph, 0.5, seed=1)
    assert "before" in kept and graph.unsupported == []

    with in_float64(network):
        image = paddle.to_tensor(np.random.default_rng(0).normal(size=SHAPE))
        calibrate(network, image)
        right, wrong = prove(network, graph, kept, image, everywhere=True)

    assert right < 1e-10 < 1e-7 < wrong


@pytest.mark.parametrize("name", PINNED)
def test_channels_that_an_operator_mixes_or_counts_are_kept(name):
    graph = ChannelGraph.trace(Custom(*PINNED[name]), SHAPE)
    assert "before" not in [group.name for group in graph.prunable_groups]
