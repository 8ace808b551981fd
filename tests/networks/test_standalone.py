"""A pruned network, taken out of segslim: rebuilt, run and trained on where segslim cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segslim.channels import prune_by_ratio
from segslim.commands import main
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint, write_standalone
from segslim.networks.network import build_network, weights_of
from segslim.networks.weight_files import read_pdparams
from segslim.paddle_compat import import_paddle

paddle = import_paddle()
FAST_SCNN = {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2, "pretrained": "https://nowhere.invalid/weights"}
ELSEWHERE = """
import sys
try:
    import segslim
except ImportError:
    pass
else:
    sys.exit("segslim can be imported here")
import numpy as np
import paddle
from load_network import load_network
network = load_network()
image = paddle.to_tensor(np.load("image.npy"))
np.save("logits.npy", network(image)[0].numpy())
network.train()
optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
sum(logits.square().mean() for logits in network(image)).backward()
optimizer.step()
for protocol in (2, 4):
    paddle.save(network.state_dict(), "model.pdparams", protocol=protocol)
    again = load_network().state_dict()
    assert all((again[name] == value).all() for name, value in network.state_dict().items())
paddle.save(network.state_dict(), "tuned.pdparams")
"""


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A checkpoint folder, an image, and the network's logits for it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    network = build_network({**FAST_SCNN, "pretrained": None}, seed=1)
    channels = prune_by_ratio(network, (1, 3, 64, 64), ratio=0.3).channels
    Checkpoint(FAST_SCNN, weights_of(network), channels).save(folder)
    image = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    network.eval()
    return folder, image, network(paddle.to_tensor(image))[0].numpy()


@pytest.mark.slow
def test_network_is_rebuilt_and_trained_where_there_is_no_segslim(pruned, tmp_path: Path) -> None:
    checkpoint, image, logits = pruned
    files = write_standalone(checkpoint, tmp_path)
    assert sorted(files) == sorted(file.name for file in tmp_path.iterdir())
    np.save(tmp_path / "image.npy", image)
    elsewhere = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert elsewhere.returncode == 0, elsewhere.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), logits)
    tuned, before = read_pdparams(tmp_path / "tuned.pdparams"), Checkpoint.load(checkpoint).weights
    assert {name: array.shape for name, array in tuned.items()} == {name: array.shape for name, array in before.items()}
    assert any((tuned[name] != before[name]).any() for name in before)


def test_dense_network_has_no_channels_file(tmp_path: Path) -> None:
    toy = {"_target_": "tests.training.toy.ToyNetwork", "num_classes": 3}
    network = build_network(toy, seed=1)
    Checkpoint.of_network(network, toy).save(tmp_path / "checkpoint")
    files = write_standalone(tmp_path / "checkpoint", tmp_path / "out")
    assert files == ["load_network.py", "model.pdparams", "model.yaml"]
    written = read_pdparams(tmp_path / "out" / "model.pdparams")
    assert all(np.array_equal(array, written[name]) for name, array in weights_of(network).items())


def test_command_writes_and_says_what(pruned, tmp_path: Path, capsys) -> None:
    assert main(["network", str(pruned[0]), str(tmp_path / "out")]) == 0
    assert "channels.json, load_network.py, model.pdparams, model.yaml" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "channels.json").read_text())["kept"]


def test_folder_that_is_no_checkpoint_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["network", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "model.yaml: does not exist; give a checkpoint folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot be written"):
        Checkpoint.of_network(build_network({**FAST_SCNN, "pretrained": None}), FAST_SCNN).save(tmp_path)
        write_standalone(tmp_path, "/proc/out")
