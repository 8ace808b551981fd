import numpy as np
from segslim.quantization.fuse import fuse_conv_bn

from segslim.paddle_compat import import_paddle
from tests.quantization.test_qat import SHAPE, build, graph, logits  # noqa: F401  (graph: a fixture)

paddle = import_paddle()


def moved(network):
    """With statistics and factors that are not those of a new batch norm."""
    random = np.random.default_rng(3)
    norm = network.stem[1]
    for tensor in (norm.weight, norm.bias, norm._mean, norm._variance):
        tensor.set_value(random.uniform(0.5, 2.0, tensor.shape).astype(np.float32))
    return network


def test_the_output_stays_and_the_batch_norm_only_adds(graph):  # noqa: F811
    before, fused = moved(build()), moved(build())
    assert fuse_conv_bn(fused, graph) == 1
    assert np.allclose(logits(fused), logits(before), rtol=1e-4, atol=1e-5)
    assert not np.allclose(fused.stem[0].weight.numpy(), before.stem[0].weight.numpy())
    assert (fused.stem[1].weight.numpy() == 1).all() and (fused.stem[1]._mean.numpy() == 0).all()


def test_its_statistics_stay_in_training(graph):  # noqa: F811
    network = moved(build())
    fuse_conv_bn(network, graph)
    expected = logits(network)
    network.train()
    image = paddle.to_tensor(np.random.default_rng(1).standard_normal(SHAPE, np.float32))
    assert np.allclose(network(image)[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (network.stem[1]._mean.numpy() == 0).all()
