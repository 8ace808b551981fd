"""The int8 model that Paddle 2.6 writes for TensorRT. A CPU only simulates it, which is enough to see what it gives."""

import numpy as np
import pytest

from segslim.deployment.conversion import deployed_network
from segslim.paddle_compat import import_paddle
from segslim.quantization.paddle_format import can_write, save_int8
from segslim.quantization.qat import fake_quantize
from tests.quantization.test_qat import SHAPE, TRAINING, build, graph, logits, table  # noqa: F401  (graph: a fixture)

paddle = import_paddle()
pytestmark = pytest.mark.skipif(not can_write(), reason="Paddle 3 does not write int8 models in Paddle's format")


def predicted(folder, image):
    config = paddle.inference.Config(str(folder / "model.pdmodel"), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.reshape(image.shape)
    handle.copy_from_cpu(image)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


@pytest.mark.parametrize("trained", [True, False])
def test_it_gives_what_the_fake_quantized_network_gives(graph, tmp_path, trained):  # noqa: F811
    known = table(graph) if trained else type(table(graph))(table(graph).ranges)
    save_int8(build(), known, graph, lambda n: deployed_network(n, "logits"), tmp_path / "int8", SHAPE, TRAINING)
    expected = logits(fake_quantize(build(), table(graph), graph))
    actual = predicted(tmp_path / "int8", np.random.default_rng(1).standard_normal(SHAPE, np.float32))
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(actual - logits(build())).max() > 1e-4 * np.abs(expected).max()


def test_its_weights_are_int8(graph, tmp_path):  # noqa: F811
    save_int8(build(), table(graph), graph, lambda n: deployed_network(n, "logits"), tmp_path / "int8", SHAPE, TRAINING)
    bytes_of_floats = 4 * sum(int(np.prod(p.shape)) for p in build().parameters())
    assert (tmp_path / "int8" / "model.pdiparams").stat().st_size < 0.8 * bytes_of_floats
