"""A Deployment is read back as it was written, and read as a stranger's: all is checked, nothing outside is opened."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import yaml

from segslim.colours import distinct_colours
from segslim.deployment.deployment import ALL_FILES, Deployment, Precision
from segslim.errors import UserError
from tests.deployment.small_onnx import write_onnx

NORMALIZE = {"type": "Normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
DEPLOY = {"model": "model.pdmodel", "params": "model.pdiparams", "transforms": [NORMALIZE]}
VALUES = {
    "input_shape": [1, 3, 24, 40],
    "output": "softmax",
    "transforms": [{"type": "Resize", "target_size": [40, 24]}, NORMALIZE],
    "classes": ["background", "disc", "视杯"],
    "colours": [(10, 20, 30), (200, 100, 0), (0, 150, 250)],
}


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """Every file that a Deployment may have, with one that it may not."""
    made = tmp_path / "made"
    (made / "paddle_int8").mkdir(parents=True)
    for name in ALL_FILES:
        (made / name).write_text(name)
    write_onnx(made / "model.onnx")
    (made / "cost.json").write_text(json.dumps({"flops": 7, "params": 5, "size_bytes": 3}))
    (made / "manifest.json").write_text("of a store")
    return made


@pytest.mark.parametrize("output", ["argmax", "softmax", "logits"])
@pytest.mark.parametrize("shape", [[1, 3, 24, 40], [None, 3, None, None]])
def test_what_was_written_is_read(folder, output, shape):
    written = Deployment.write(folder, **{**VALUES, "output": output, "input_shape": shape})
    assert Deployment.load(folder) == written
    assert (written.output, written.input_shape) == (output, tuple(shape))
    assert written.input_size == ((40, 24) if shape[2] else None)
    assert list(written.transforms) == VALUES["transforms"] and written.classes == tuple(VALUES["classes"])
    assert written.palette == VALUES["colours"] and written.precision == Precision()
    assert written.cost.flops == 7 and written.onnx_file == folder / "model.onnx"
    assert written.paddle_files == (folder / "model.json", folder / "model.pdiparams")


def test_an_int8_deployment_has_no_float_model(folder):
    deployment = Deployment.write(folder, **VALUES, precision=Precision("int8", ("float32", "bfloat16")))
    assert deployment.precision.is_int8 and deployment.precision.compute == ("float32", "bfloat16")
    assert deployment.paddle_int8 is not None
    with pytest.raises(UserError, match=r"model\.json"):
        _ = deployment.paddle_files
    deploy = yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]
    assert deploy["model"] == deploy["params"] == "model.onnx"


@pytest.mark.parametrize("precision", [Precision(), Precision("int8")])
def test_a_copy_leaves_the_first_as_it_was(folder, tmp_path, precision):
    deployment = Deployment.write(folder, **VALUES, precision=precision)
    before = files(folder)
    copied = deployment.save(tmp_path / "copy")
    assert files(folder) == before
    assert files(tmp_path / "copy") == {name: held for name, held in before.items() if name != "manifest.json"}
    assert Deployment.load(tmp_path / "copy") == copied == dataclasses.replace(deployment, folder=tmp_path / "copy")
    assert deployment.save(folder) == deployment and files(folder) == before


def write(folder, content):
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": content}))
    return folder


def refused(folder):
    with pytest.raises(UserError) as error:
        Deployment.load(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


@pytest.mark.parametrize("shape", [None, [-1, 3, -1, -1], [None, 3, None, None], [1, 3, None, 64]])
def test_a_file_of_paddlesegs_own_is_read_with_colours_for_any_class(tmp_path, shape):
    deployment = Deployment.load(write(tmp_path, {**DEPLOY, "input_shape": shape, "output_op": "argmax", "other": 1}))
    assert deployment.input_size is None and deployment.palette == list(distinct_colours(256))


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
    "no text": b"\xff\xfe\x00\x80",
    "too large": "#" * (1 << 20) + "\nDeploy: {}",
    "aliases that unfold without end": "\n".join(
        [
            "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]",
            *(f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 8) + "]" for n in range(1, 30)),
            "Deploy: {model: *a29, params: *a29, transforms: *a29}",
        ]
    ),
}


@pytest.mark.parametrize("content", BAD_TEXT.values(), ids=BAD_TEXT)
def test_what_is_no_plain_yaml_is_one_line_and_nothing_is_run(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "deploy.yaml" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deploy.yaml"]


BAD_VALUES = {
    "model": ("Deploy.model", {"model": "../../secrets/model.onnx"}),
    "model elsewhere": ("Deploy.model", {"model": "/etc/passwd"}),
    "model on another drive": ("Deploy.model", {"model": "C:model"}),
    "folder itself": ("Deploy.params", {"params": ".."}),
    "no transforms": ("Deploy.transforms", {"transforms": None}),
    "transforms of another kind": ("Deploy.transforms", {"transforms": ["Normalize"]}),
    "too many transforms": ("Deploy.transforms", {"transforms": [NORMALIZE] * 100}),
    "a size": ("Deploy.input_shape", {"input_shape": [1, 3, "wide", 5]}),
    "shape": ("Deploy.input_shape", {"input_shape": [3, 5]}),
    "output": ("Deploy.output_op", {"output_op": "sigmoid"}),
    "colour": ("Deploy.colours", {"colours": [[1, 2, 256]]}),
    "classes": ("Deploy.classes", {"classes": {"a": 1}}),
    "precision": ("Deploy.precision", {"precision": "int4"}),
    "compute": ("Deploy.compute", {"compute": ["float32", "float8"]}),
}


@pytest.mark.parametrize(("words", "changed"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_named_by_its_key(tmp_path, words, changed):
    assert words in refused(write(tmp_path, {**DEPLOY, **changed}))


def test_a_missing_key_is_named(tmp_path):
    assert "Deploy.params has no value" in refused(write(tmp_path, {"model": "m", "transforms": []}))


@pytest.mark.parametrize("name", ["deploy.yaml", "model.onnx", "model.pdiparams", "paddle_int8/model.pdmodel"])
def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path, name):
    Deployment.write(folder, **VALUES)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} is a link out of the export folder" in refused(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)  # which leads to itself
    if name == "deploy.yaml":
        assert "holds no deploy.yaml" in refused(folder)
    else:
        assert not (Deployment.load(folder).folder / name).is_file()


def test_a_broken_record_is_named(folder):
    (folder / "cost.json").write_text('{"flops": "many"}')
    with pytest.raises(UserError, match=r"cost\.json"):
        _ = Deployment.write(folder, **VALUES).cost


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


@pytest.mark.parametrize("place", [*PLACES, "training"])
def test_no_tensor_of_a_model_may_lie_outside_of_it(folder, place):
    deployment = Deployment.write(folder, **VALUES)
    deployment.check_onnx_file()
    model = onnx.load(deployment.onnx_file)
    _hidden(model, place)
    deployment.onnx_file.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="keeps its weights in other files"):
        deployment.check_onnx_file()


def test_weights_that_onnx_saved_outside_are_not_read(folder):
    deployment = Deployment.write(folder, **VALUES)
    model = onnx.load(deployment.onnx_file)
    onnx.save(model, deployment.onnx_file, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(UserError, match="keeps its weights in other files"):
        deployment.check_onnx_file()
