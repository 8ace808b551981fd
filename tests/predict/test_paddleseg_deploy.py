"""PaddleSeg's own deployment reads the export folder and finds the same classes.

`Predictor` of PaddleSeg's deploy/python/infer.py is not in its wheel. What it does on a CPU is done here by the same
parts: `DeployConfig`, which is in the wheel, and Paddle Inference as that script sets it up.

On Paddle 3.3.1 that set-up opens no model at all, whoever exported it: `enable_memory_optim` looks for results of an
executor that is not used any more. With the two calls that the Paddle engine of segslim explains, it runs there.
"""

import os

import numpy as np
import pytest
from PIL import Image

from segslim.paddle_compat import import_paddle, import_paddleseg
from segslim.predict import open_predictor, read_image
from tests.predict.exports import NORMALIZE, write_export

paddle = import_paddle()
inference = paddle.inference
import_paddleseg()

from paddleseg.deploy.infer import DeployConfig  # noqa: E402

pytestmark = pytest.mark.slow
PADDLE_3 = paddle.__version__.startswith("3.")


@pytest.fixture(autouse=True)
def threads_given_back():
    """A predictor sets the number of threads for the whole process, and the last bits of other tests with it."""
    yield
    paddle.base.core.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def as_the_script_sets_it_up(model, params):
    config = inference.Config(model, params)
    config.disable_glog_info()
    config.enable_memory_optim()
    config.switch_ir_optim(True)
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(2)
    return config


def classes_by_paddleseg(folder, image):
    """The output of the network for an image file, as the script has it before it saves it."""
    deploy = DeployConfig(str(folder / "deploy.yaml"))
    config = as_the_script_sets_it_up(deploy.model, deploy.params)
    if PADDLE_3:
        config.enable_new_executor(True)
        config.delete_pass("onednn_placement_pass")
    predictor = inference.create_predictor(config)
    batch = np.array([deploy.transforms({"img": str(image)})["img"]])
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.reshape(batch.shape)
    handle.copy_from_cpu(batch)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()[0]


@pytest.fixture
def image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(tmp_path / "photograph.jpg")
    return tmp_path / "photograph.jpg"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "paddle"])
def test_a_fixed_size_export_gives_the_same_classes(export_folder, image, engine):
    theirs = classes_by_paddleseg(export_folder, image)
    ours = open_predictor(export_folder, engine).predict(read_image(image))
    assert len(np.unique(ours)) > 1
    assert theirs.shape == ours.shape and (theirs == ours).mean() > 0.999


def test_a_dynamic_export_of_probabilities_gives_the_same_classes(tmp_path, image):
    folder = write_export(tmp_path / "dynamic", size=None, output="softmax", transforms=[NORMALIZE])
    theirs = classes_by_paddleseg(folder, image).argmax(axis=0)
    ours = open_predictor(folder).predict(read_image(image))
    assert (theirs == ours).mean() > 0.999


@pytest.mark.skipif(not PADDLE_3, reason="the script runs as it is on Paddle 2.6.2, which the tests above show")
def test_on_paddle_3_the_script_opens_not_even_a_single_convolution(tmp_path):
    shape = paddle.static.InputSpec([1, 3, 8, 8], "float32", "x")
    paddle.jit.save(paddle.nn.Conv2D(3, 2, 3), str(tmp_path / "model"), input_spec=[shape])
    config = as_the_script_sets_it_up(str(tmp_path / "model.json"), str(tmp_path / "model.pdiparams"))
    with pytest.raises(ValueError, match=r"Not find predictor_id [0-9]+ and pass_name memory_optimize_pass"):
        inference.create_predictor(config)
