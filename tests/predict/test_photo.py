"""photo.onnx: a photo goes in as it is, and the mask that `segslim.predict` makes of it comes out, pixel for pixel."""

import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segslim.commands import main
from segslim.deployment import Deployment
from segslim.deployment.photo import write_photo
from segslim.errors import UserError
from segslim.onnx_tools import session_of
from segslim.predict import open_predictor
from segslim.predict.preprocessing import apply, transform_from_node
from segslim.stages.export import check_preprocess
from tests.command import config
from tests.predict.exports import CLASSES, COLOURS, NORMALIZE, RESIZE, SIZE, write_export

SIZES = [SIZE, (192, 128), (200, 150), (31, 77), (640, 480), (333, 777), (97, 65), (40, 30), (1000, 40), (1280, 720)]


def photograph(width, height, seed=0):
    """Smooth colours with noise on them."""
    random = np.random.default_rng([width, height, seed])
    smooth = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth // 8 * 7 + random.integers(0, 32, smooth.shape)).astype(np.uint8)


def masks(folder, image, file="photo.onnx"):
    return session_of(folder / file, threads=1).run(None, {"image": image})[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("photo"), size=SIZE, photo="rgb")


@pytest.mark.parametrize("target", [(256, 256), (96, 64), (250, 190), (13, 7)])
def test_the_network_is_given_what_predict_gives_it_to_the_bit(target, tmp_path):
    """A network that gives its input back."""
    shape = [1, 3, target[1], target[0]]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["logits"])], "same", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    nodes = [{"type": "Resize", "target_size": list(target)}, NORMALIZE]
    write_photo(tmp_path / "model.onnx", tmp_path / "photo.onnx", nodes, 3, "rgb")
    onnx.checker.check_model(onnx.load(tmp_path / "photo.onnx"), full_check=True)
    transforms = [transform_from_node(node, "") for node in nodes]
    for size in SIZES:
        image = photograph(*size)
        assert np.array_equal(masks(tmp_path, image), apply(transforms, image)[0]), size


def test_the_mask_is_predicts_at_every_size(folder):
    predictor = open_predictor(folder)
    onnx.checker.check_model(onnx.load(folder / "photo.onnx"), full_check=True)
    classes = set()
    for size in SIZES:
        for seed in range(3):
            image = photograph(*size, seed)
            mask = masks(folder, image)
            assert mask.dtype == np.uint8 and np.array_equal(mask, predictor.predict(image)), size
            classes |= set(np.unique(mask))
    assert len(classes) > 1


def test_a_network_of_any_size_takes_photos_of_any_size(tmp_path):
    write_export(tmp_path, size=None, transforms=[NORMALIZE], photo="bgr", opset=18, fp16=True)
    predictor = open_predictor(tmp_path)
    for size in [(96, 64), (77, 130)]:
        image = photograph(*size)
        assert np.array_equal(masks(tmp_path, np.ascontiguousarray(image[..., ::-1])), predictor.predict(image))


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_probabilities_and_logits_stay_at_the_networks_size(output, tmp_path):
    write_export(tmp_path, size=SIZE, output=output, photo="rgb", formats=["onnx"])
    image, predictor = photograph(200, 150), open_predictor(tmp_path)
    given = masks(tmp_path, image)
    assert given.shape == (1, len(CLASSES), SIZE[1], SIZE[0])
    assert np.array_equal(given, predictor.session.run({"x": predictor.prepare(image).input})[0])


def test_what_the_file_is_stands_in_it_and_the_measured_miou_in_a_copy(folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    network = {"deployment": str(folder), "engine": "onnxruntime", "session": None, "miou": 0.8125}
    (run / "report.json").write_text(json.dumps({"compressed": network}))
    assert main(["deployment", str(run), str(tmp_path / "shipped")]) == 0
    assert "photo.onnx" in capsys.readouterr().out
    shipped = Deployment.load(tmp_path / "shipped")
    assert (shipped.miou, Deployment.load(folder).miou) == (0.8125, None)
    for name in ("model.onnx", "photo.onnx"):
        said = {one.key: one.value for one in onnx.load(shipped.folder / name).metadata_props}
        assert json.loads(said["classes"]) == CLASSES and json.loads(said["miou"]) == 0.8125
        assert json.loads(said["mean"]) == NORMALIZE["mean"] and json.loads(said["std"]) == NORMALIZE["std"]
        assert json.loads(said["colours"]) == [list(colour) for colour in COLOURS]
        assert json.loads(said["transforms"]) == [RESIZE, NORMALIZE] and said["output"] == "argmax"
        assert ("uint8, 0 to 255, rgb" in said["input"]) == (name == "photo.onnx")
    image = photograph(200, 150)
    assert np.array_equal(masks(shipped.folder, image), open_predictor(shipped.folder).predict(image))
    assert main(["deployment", str(run), str(tmp_path / "shipped")]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["dataset.val_transforms=[{_target_:paddleseg.transforms.Padding,target_size:[9,9]}]"],
            "Padding, target_size",
        ),
        (["dataset.val_transforms=[{_target_:paddleseg.transforms.Resize,interp:AREA}]"], "Resize, interp=AREA"),
        (["dataset.channels=4", "export.preprocess=bgr"], r"dataset\.channels=4"),
    ],
)
def test_what_cannot_be_in_the_graph_is_refused_before_any_work(overrides, words):
    with pytest.raises(UserError, match=words):
        check_preprocess(config("export.preprocess=true", *overrides))
    check_preprocess(config("export.preprocess=true"))
