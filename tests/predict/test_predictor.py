"""The class of every pixel: of every form of export, at the image's own size, as evaluation sees it."""

import shutil
from dataclasses import replace
from itertools import cycle

import cv2
import numpy as np
import onnx
import pytest

from segslim.deployment import Deployment
from segslim.deployment.engines import available
from segslim.errors import UserError
from segslim.evaluation.metrics import resize_nearest
from segslim.predict import open_predictor
from tests.predict.exports import NORMALIZE, SIZE, write_export


def photograph(width, height):
    """Smooth colours, so that classes form regions."""
    noise = np.random.default_rng(width).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def expected(session, image, transforms):
    """Written out: what OpenCV and the network make of it, resized back."""
    seen = cv2.resize(image.astype(np.float32), SIZE) if "Resize" in transforms else image.astype(np.float32)
    seen = ((seen / 255 - np.array(NORMALIZE["mean"])) / np.array(NORMALIZE["std"])).astype(np.float32)
    output = session.run({"x": seen.transpose(2, 0, 1)[np.newaxis]})[0]
    ids = output if output.ndim == 3 else output.argmax(axis=1)
    return resize_nearest(ids[0], *image.shape[:2])


@pytest.mark.parametrize("engine", available())
@pytest.mark.parametrize("size", [SIZE, (200, 150), (31, 77)])
def test_class_ids_come_back_at_the_size_of_the_image(export_folder, engine, size):
    predictor = open_predictor(export_folder, engine)
    image = photograph(*size)
    ids = predictor.predict(image)
    assert ids.shape == image.shape[:2] and ids.dtype == np.uint8 and len(np.unique(ids)) > 1
    reference = open_predictor(export_folder, "onnxruntime").session
    assert (ids == expected(reference, image, ["Resize"])).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "engine"),
    zip(cycle(("argmax", "softmax", "logits")), (name for name in available() if name != "ncnn"), strict=False),
)
def test_every_output_and_any_size_give_the_classes_of_the_largest_logit(tmp_path, output, engine):
    folder = write_export(tmp_path / output, size=None, output=output, transforms=[NORMALIZE])
    predictor, reference = open_predictor(folder, engine, threads=1), open_predictor(folder).session
    for size in [(96, 64), (77, 130)]:
        image = photograph(*size)
        ids = predictor.predict(image)
        assert ids.shape == image.shape[:2]
        assert (ids == expected(reference, image, [])).mean() > 0.999


def test_an_image_that_does_not_fit_a_fixed_size_is_refused_with_the_remedy(export_folder):
    unresized = replace(open_predictor(export_folder), transforms=())
    with pytest.raises(UserError, match=r"20 x 30.*96 x 64.*resize it, or export with"):
        unresized.predict(photograph(20, 30))


def test_an_engine_that_fails_is_named_with_its_reason(export_folder):
    opened = open_predictor(export_folder)
    careless = replace(opened, transforms=(), deployment=replace(opened.deployment, input_shape=None))
    with pytest.raises(UserError, match="onnxruntime cannot run it: ") as error:
        careless.predict(photograph(20, 30))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [[1, 0, 0], [1, 1, 3, 64, 96], [2, 64, 96]])
def test_a_model_that_gives_no_class_for_each_pixel_is_refused(export_folder, tmp_path, shape):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    size = onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [len(shape)], shape)
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 64, 96])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)]
    node = onnx.helper.make_node("ConstantOfShape", ["size"], ["y"])
    graph = onnx.helper.make_graph([node], "hostile", inputs, outputs, [size])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8),
        folder / "model.onnx",
    )
    with pytest.raises(UserError, match="which is no class for each pixel"):
        open_predictor(folder).predict(photograph(30, 20))


def test_a_transform_that_cannot_be_applied_is_named(export_folder, tmp_path):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    resize, random = {"type": "Resize", "target_size": [96, 64]}, {"type": "RandomPaddingCrop"}
    Deployment.write(folder, input_shape=None, output="argmax", transforms=[resize, random])
    with pytest.raises(UserError, match=r"transforms\[1\]: the transform 'RandomPaddingCrop'"):
        open_predictor(folder)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_a_file_that_is_no_model_is_one_line(export_folder, tmp_path, engine, content):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(UserError) as error:
        open_predictor(folder, engine)
    assert "\n" not in str(error.value)


def test_a_missing_model_is_named_and_weights_elsewhere_are_not_read(export_folder, tmp_path):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(UserError, match="keeps its weights in other files"):
        open_predictor(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx does not exist.*paddle"):
        open_predictor(folder)


def test_an_unknown_engine_is_refused(export_folder):
    with pytest.raises(UserError, match="engine 'tensorflow' is unknown"):
        open_predictor(export_folder, "tensorflow")
