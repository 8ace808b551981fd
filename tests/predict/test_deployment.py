"""deploy.yaml is read as a stranger's file: everything in it is checked, and nothing outside its folder is opened."""

import shutil

import numpy as np
import onnx
import pytest
import yaml

from segslim.errors import UserError
from segslim.predict.deployment import read_deployment
from segslim.predict.predictor import open_predictor
from tests.predict.exports import CLASSES, COLOURS, NORMALIZE, SIZE

DEPLOY = {"model": "model.pdmodel", "params": "model.pdiparams", "transforms": [NORMALIZE]}


def write(folder, content):
    (folder / "deploy.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump({"Deploy": content}))
    return folder


def refused(folder):
    with pytest.raises(UserError) as error:
        read_deployment(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_an_export_says_its_size_classes_and_colours(export_folder):
    deployment = read_deployment(export_folder)
    assert deployment.input_size == SIZE
    assert deployment.classes == tuple(CLASSES) and deployment.colours == tuple(COLOURS)
    assert [type(transform).__name__ for transform in deployment.transforms] == ["Resize", "Normalize"]


@pytest.mark.parametrize("shape", [None, [-1, 3, -1, -1], [None, 3, None, None], [1, 3, None, 64]])
def test_a_file_of_paddlesegs_own_is_read_with_colours_for_any_class(tmp_path, shape):
    deployment = read_deployment(write(tmp_path, {**DEPLOY, "input_shape": shape, "output_op": "argmax", "other": 1}))
    assert deployment.input_size is None and len(deployment.colours) == 256


def test_a_missing_folder_or_file_is_named(tmp_path):
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")
    assert "holds no deploy.yaml" in refused(tmp_path)


BAD_TEXT = {
    "python object": "Deploy: !!python/object/apply:os.system ['touch touched']",
    "python tuple": "Deploy: {model: !!python/tuple [a]}",
    "no mapping": "[1, 2]",
    "nothing": "",
    "another mapping": "Train: {}",
    "broken": "Deploy: {",
    "a number too long": "Deploy: " + "9" * 10000,
    "nested deep": "[" * 2000,
    "not text": "Deploy: \x00",
    "a date that is none": "Deploy: 2020-99-99",
}


@pytest.mark.parametrize("text", BAD_TEXT.values(), ids=BAD_TEXT)
def test_what_is_no_plain_yaml_is_one_line(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "deploy.yaml" in refused(write(tmp_path, text))
    assert [path.name for path in tmp_path.iterdir()] == ["deploy.yaml"]


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "deploy.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "deploy.yaml" in refused(tmp_path)


def test_aliases_that_unfold_without_end_are_cut_short(tmp_path):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 8) + "]" for n in range(1, 30)]
    refused(write(tmp_path, "\n".join([*lines, "Deploy: {model: *a29, params: *a29, transforms: *a29}"])))


def test_a_file_too_large_is_not_read(tmp_path):
    assert "larger than" in refused(write(tmp_path, "#" * (1 << 20) + "\nDeploy: {}"))


BAD_VALUES = {
    "model": ("Deploy.model", {"model": "../../secrets/model.onnx"}),
    "model elsewhere": ("Deploy.model", {"model": "/etc/passwd"}),
    "model on another drive": ("Deploy.model", {"model": "C:model"}),
    "folder itself": ("Deploy.params", {"params": ".."}),
    "no transforms": ("Deploy.transforms", {"transforms": None}),
    "transforms of another kind": ("Deploy.transforms", {"transforms": ["Normalize"]}),
    "too many transforms": ("Deploy.transforms", {"transforms": [NORMALIZE] * 100}),
    "unknown transform": (
        "transforms[0]: the transform 'RandomPaddingCrop'",
        {"transforms": [{"type": "RandomPaddingCrop"}]},
    ),
    "bad value": ("transforms[1].target_size", {"transforms": [NORMALIZE, {"type": "Resize", "target_size": [-1, 5]}]}),
    "shape": ("Deploy.input_shape", {"input_shape": [3, 5]}),
    "output": ("Deploy.output_op", {"output_op": "sigmoid"}),
    "colour": ("Deploy.colours", {"colours": [[1, 2, 256]]}),
    "classes": ("Deploy.classes", {"classes": {"a": 1}}),
}


@pytest.mark.parametrize(("words", "changed"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_named_by_its_key(tmp_path, words, changed):
    assert words in refused(write(tmp_path, {**DEPLOY, **changed}))


def test_a_missing_key_is_named(tmp_path):
    assert "Deploy.params has no value" in refused(write(tmp_path, {"model": "m", "transforms": []}))


@pytest.mark.parametrize("name", ["deploy.yaml", "model.onnx", "model.pdiparams"])
def test_a_link_out_of_the_folder_is_not_followed(export_folder, tmp_path, name):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert f"{name} is a link out of the export folder" in refused(folder)


def test_weights_in_other_files_are_not_read(export_folder, tmp_path):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(UserError, match="keeps its weights in other files"):
        open_predictor(folder)


def _outside(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def _zeros():
    return _outside(onnx.numpy_helper.from_array(np.zeros(2, np.float32), "weights"))


def _constant(**attribute):
    return onnx.helper.make_node("Constant", [], ["c"], **attribute)


def _hidden(model, place):
    sparse = onnx.SparseTensorProto(values=_zeros(), dims=[2])
    inner = onnx.helper.make_graph([_constant(value=_zeros())], "inner", [], [])
    if place == "initializer":
        model.graph.initializer.append(_zeros())
    elif place == "sparse initializer":
        model.graph.sparse_initializer.append(sparse)
    elif place == "constant":
        model.graph.node.append(_constant(value=_zeros()))
    elif place == "sparse constant":
        model.graph.node.append(_constant(sparse_value=sparse))
    elif place == "branch":
        model.graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner))
    elif place == "sparse branch":
        inner = onnx.GraphProto(sparse_initializer=[sparse])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner))
    elif place == "function":
        model.functions.append(onnx.helper.make_function("d", "f", [], ["c"], [_constant(value=_zeros())], []))
    elif place == "training":
        model.training_info.append(onnx.TrainingInfoProto(algorithm=inner))


PLACES = ["initializer", "sparse initializer", "constant", "sparse constant", "branch", "sparse branch", "function"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", [*PLACES, "training"])
def test_no_tensor_of_a_model_may_lie_outside_of_it(export_folder, tmp_path, engine, place):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    model = onnx.load(folder / "model.onnx")
    _hidden(model, place)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="keeps its weights in other files"):
        open_predictor(folder, engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_a_file_that_is_no_model_is_one_line(export_folder, tmp_path, engine, content):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(UserError) as error:
        open_predictor(folder, engine)
    assert "\n" not in str(error.value)


def test_a_missing_model_is_named(export_folder, tmp_path):
    folder = shutil.copytree(export_folder, tmp_path / "export")
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx does not exist.*--engine paddle"):
        open_predictor(folder)
