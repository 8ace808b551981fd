"""Weights of strangers that a config names as `pretrained`, of a network, its backbone or a loss: nothing is run."""

import pickle
import sys
from pathlib import Path

import pytest
import yaml

from segslim.errors import UserError
from segslim.networks import load_network
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import build_network, weights_read_as_data
from segslim.networks.weight_files import write_pdparams
from segslim.paddle_compat import import_paddle
from segslim.stages.train import check_teacher
from segslim.training.losses import build_losses
from tests.command import config

paddle = import_paddle()
MODELS = (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
SHIPPED = sorted(file.stem for file in MODELS if file.stem != "exported")  # that is a file of the user's
_unpickled, _armed = [], []
sys.addaudithook(lambda event, found: _unpickled.append(found) if _armed and event == "pickle.find_class" else None)


class Exploit:
    def __reduce__(self):
        return open, ("ran", "w")


class LoadingLoss(paddle.nn.Layer):
    def __init__(self, pretrained):
        super().__init__()
        self.weights = paddle.load(pretrained)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A file that runs code when it is unpickled; within the test no pickle may name anything."""
    monkeypatch.chdir(tmp_path)
    Path("stranger.pdparams").write_bytes(pickle.dumps({"weight": Exploit()}))
    _unpickled.clear()
    _armed.append(True)
    yield "stranger.pdparams"
    _armed.clear()
    assert not _unpickled and not Path("ran").exists()


def _refused(node):
    with paddle.LazyGuard(), pytest.raises(UserError, match=r"stranger\.pdparams: names .* was not run"):
        build_network(node)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_or_backbone_runs_nothing_of_its_pretrained_file(stranger, name):
    node = config(f"model={name}").model.network
    if name != "bisenetv1":  # PaddleSeg 2.8.0's takes the key and never loads the file
        _refused({**node, "pretrained": stranger})
    if "backbone" in node:
        _refused({**node, "backbone": {**node["backbone"], "pretrained": stranger}})


@pytest.mark.parametrize("name", ["CAE", "UNetPlusPlus", "FastSCNN"])
def test_nor_do_those_that_load_it_in_another_way(stranger, name):
    target = f"paddleseg.models.{name}" if name != "CAE" else "paddleseg.models.backbones.cae.CAE"
    _refused({"_target_": target, "pretrained": stranger, **({} if name == "CAE" else {"num_classes": 2})})


def test_nor_does_a_loss(stranger):
    node = {"types": [{"_target_": f"{__name__}.LoadingLoss", "pretrained": stranger}], "coef": [1.0]}
    with weights_read_as_data(), pytest.raises(UserError, match="was not run"):
        build_losses(node)


NO_NETWORKS = {
    "a command": {"_target_": "os.system", "command": "touch ran"},
    "one within a network": {
        "_target_": "paddleseg.models.FCN",
        "num_classes": 2,
        "backbone": {"_target_": "builtins.open", "file": "ran", "mode": "w"},
    },
    "Paddle's reader of pickles": {"_target_": "paddle.load", "path": "stranger.pdparams"},
    "another package's": {"_target_": "numpy.load", "file": "stranger.pdparams", "allow_pickle": True},
    "text that PaddleSeg evaluates": {
        "_target_": "paddleseg.models.PPLiteSeg",
        "num_classes": 2,
        "arm_type": "open('ran', 'w')",
    },
}


@pytest.mark.parametrize("node", NO_NETWORKS.values(), ids=NO_NETWORKS)
def test_a_checkpoint_folder_makes_layers_and_runs_nothing(stranger, node):
    """As the teacher of a distillation, and in the program that stands beside a network taken out of segslim."""
    Path("model.yaml").write_text(yaml.safe_dump(node))
    write_pdparams("model.pdparams", {})
    Checkpoint(node, {}).save("checkpoint")
    options = ("compress=prune_distil", "retrain.distill.teacher=checkpoint", "dataset.num_classes=2")
    with pytest.raises(UserError, match=r"teacher=checkpoint: model\.yaml: .* was not run"):
        check_teacher(config(*options))
    with pytest.raises(ValueError, match="do not trust this folder"):
        load_network.load_network(".")


def test_a_network_that_was_taken_out_reads_its_weights_as_data(stranger):
    Path("model.yaml").write_text("{_target_: paddle.nn.Linear, in_features: 3, out_features: 2}")
    Path(stranger).rename("model.pdparams")
    with pytest.raises(pickle.UnpicklingError, match=r"names .*open, which no file of weights needs"):
        load_network.load_network(".")


def test_weights_alone_are_taken_over(tmp_path):
    node = {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2}
    weights = {name: tensor.numpy() for name, tensor in build_network(node, seed=1).state_dict().items()}
    write_pdparams(tmp_path / "own.pdparams", weights)
    made = build_network({**node, "pretrained": str(tmp_path / "own.pdparams")}, seed=2).state_dict()
    assert all((made[name].numpy() == weights[name]).all() for name in weights)
