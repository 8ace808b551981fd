"""A user's own network, by the command: what cannot be pruned in it is named, and kept."""

import json

import pytest

from tests.command import segslim

pytestmark = pytest.mark.slow

NETWORK = """
import paddle
from paddle import nn


class Mine(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 48, 3, padding=1), nn.BatchNorm2D(48), nn.ReLU())
        self.groups = nn.Sequential(nn.Conv2D(48, 48, 3, padding=1, groups=4), nn.BatchNorm2D(48), nn.ReLU())
        self.summed = nn.Conv2D(48, 16, 1)
        self.head = nn.Conv2D(16, num_classes, 1)

    def forward(self, image):
        x = self.groups(self.stem(image))
        return [self.head(paddle.cumsum(self.summed(x), axis=3))]
"""

TINY = [
    "compress=prune_taylor",
    "compress.stages=[score,prune,retrain]",
    "stages.last=[export]",
    "compress.ratio=0.32",  # channels of four groups go together, so not every ratio can be met
    "compress.align=1",
    "compress.taylor.batches=1",
    "~model.network",
    "+model.network={_target_:my_module.Mine,num_classes:2}",
    "model.loss.coef=[1.0]",
    "dataset.size=[64,64]",
    "dataset.source.train_images=4",
    "dataset.source.val_images=2",
    *(f"{stage}.{key}={value}" for stage in ("train", "retrain") for key, value in (("iters", 1), ("batch_size", 2))),
    "num_workers=0",
]


def test_an_operator_without_a_rule_is_named_in_the_log_and_its_channels_stay(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = segslim(*TINY, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    (log,) = (tmp_path / "outputs").rglob("run.log")
    assert "Mine: channels that reach these operators are never removed: cumsum" in log.read_text()
    (pruned,) = (tmp_path / ".segslim" / "artifacts").glob("prune-*")
    kept = json.loads((pruned / "channels.json").read_text())["kept"]
    assert "0" in kept["stem.0.weight"] or "0" in kept["groups.0.weight"]
    assert "0" not in kept.get("summed.weight", {}) and "head.weight" not in kept
