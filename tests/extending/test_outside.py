"""Each thing that can be added is added from a folder outside of the package, which is not touched, and really used.

What is added to the config is one YAML file each (`--config-dir`), what is code one function or class each, named by
where it stands. One command uses them all.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from segslim import Checkpoint
from tests.command import segslim
from tests.data import layouts

pytestmark = pytest.mark.slow

CODE = {
    "my_network.py": """
import paddle
from paddle import nn


class Mirrored(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.before, self.after = nn.Conv2D(3, 20, 3, padding=1), nn.Conv2D(20, num_classes, 1)

    def forward(self, image):
        return [self.after(paddle.flip(self.before(image), axis=[3]))]
""",
    "my_rule.py": """
def flip(operator, walk):
    walk.set_ids(operator.output, walk.full_ids(operator.input("x")))
""",
    "my_criterion.py": """
import numpy as np


def later(group, inputs):
    return np.arange(group.size, dtype=np.float64)
""",
    "my_engine.py": """
import onnxruntime


def open_session(deployment, *, threads, precision, device):
    return Plain(deployment.onnx_file, threads)


class Plain:
    name = "plain"
    input_names = ["x"]

    def __init__(self, file, threads):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(file), options)

    def run(self, inputs):
        return self._session.run(None, dict(inputs))

    def describe(self):
        return {"name": "plain", "version": "1", "device": "cpu", "threads": 1, "precision": "float32"}
""",
    "my_stage.py": """
from my_digits import DIGITS
from segslim import Checkpoint, stage


@stage(gives=Checkpoint)
def round_weights(checkpoint: Checkpoint, workspace) -> Checkpoint:
    workspace.summarize("two digits")
    return checkpoint.with_weights({name: array.round(DIGITS) for name, array in checkpoint.weights.items()})
""",
    "my_digits.py": "DIGITS = 2\n",
}
CONFIGS = {
    "model/mirrored.yaml": """
defaults: [loss: cross_entropy]
name: mirrored
network: {_target_: my_network.Mirrored, num_classes: "${dataset.num_classes}"}
""",
    "dataset/mine.yaml": """
defaults: [folder]
name: mine
root: images
num_classes: 3
size: [64, 64]
recipe: {iters: 2, retrain_iters: 1, batch_size: 2, learning_rate: 0.01}
""",
    "compress/mine.yaml": """
defaults: [prune]
name: mine
stages: [score, prune, "my_stage:round_weights"]
criterion: my_criterion:later
allocation: uniform
align: 1
rules: {flip: "my_rule:flip"}
""",
}
TYPED = [
    "--config-dir=conf",
    "stages.last=[export,select,evaluate,benchmark]",
    "dataset=mine",
    "num_workers=0",
    "benchmark.warmup=1",
    "benchmark.iters=2",
    "benchmark.settle=0",
    "benchmark.seconds=0",
]
PRUNED = [
    *TYPED,
    "model=mirrored",
    "compress=mine",
    "compress.ratio=0.25",
    "engine.candidates=[my_engine:open_session]",
]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The folder: the files above, images, the store and the outputs of the one command."""
    folder = tmp_path_factory.mktemp("outside")
    for path, text in (*CODE.items(), *((f"conf/{path}", text) for path, text in CONFIGS.items())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    layouts.folder(folder / "images")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.syspath_prepend(str(folder))
        answer = segslim(*PRUNED, "hydra.run.dir=out", cwd=folder)
        assert answer.returncode == 0, answer.stderr
        yield folder


def artifact(folder: Path, stage: str) -> Path:
    (found,) = (folder / ".segslim" / "artifacts").glob(f"{stage}-*")
    return found


def report(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def test_a_network_and_a_data_set_are_a_yaml_file_each(outside):
    assert (report(outside)["model"], report(outside)["dataset"]) == ("mirrored", "mine")
    assert json.loads((artifact(outside, "data") / "summary.json").read_text())["train"]["pairs"] == 8


def test_a_strategy_is_a_list_of_stages_and_a_stage_a_row(outside):
    stages = [stage["name"] for stage in report(outside)["stages"] if not stage["name"].startswith("baseline")]
    assert stages == [
        *("data", "train", "score", "prune", "round_weights", "export", "select", "evaluate", "benchmark")
    ]
    for array in Checkpoint.load(artifact(outside, "round_weights")).weights.values():
        assert np.array_equal(array, array.round(2))


def test_a_criterion_is_a_function(outside):
    """The channels that it says are worth least, the first ones, are those that went."""
    kept = json.loads((artifact(outside, "prune") / "channels.json").read_text())["kept"]
    assert kept["before.weight"]["0"] == list(range(5, 20))


def test_an_operator_rule_is_a_function(outside):
    """Without it nothing of this network can be pruned, and the log names the operator."""
    answer = segslim(*PRUNED, "~compress.rules", "hydra.run.dir=unruled", cwd=outside)
    assert answer.returncode == 2 and "at most 0.000 can be removed" in answer.stderr
    log = (outside / "unruled" / "run.log").read_text()
    assert re.search(r"Mirrored: .*never removed: flip", log)


def test_an_engine_is_a_file(outside):
    assert report(outside)["compressed"]["engine"] == "my_engine:open_session"
    latency = json.loads((artifact(outside, "benchmark") / "latency.json").read_text())
    assert latency["sessions"]["compressed"]["name"] == "plain"


@pytest.mark.parametrize(
    ("changed", "made"),
    [
        ("my_criterion.py", {"score"}),  # and no further: the same scores would be pruned by
        ("my_digits.py", {"round_weights"}),  # what a stage imports, not the stage's own file
    ],
)
def test_what_is_changed_in_it_is_made_again(outside, changed, made):
    file, artifacts = outside / changed, outside / ".segslim" / "artifacts"
    before = {path.name for path in artifacts.iterdir()}
    file.write_text(file.read_text() + "# changed")
    stages = "[score]" if made == {"score"} else "[score,prune,my_stage:round_weights]"
    answer = segslim(*PRUNED, f"compress.stages={stages}", "stages.last=[]", cwd=outside)
    assert answer.returncode == 0, answer.stderr
    found = {path.name.partition("-")[0] for path in artifacts.iterdir() if path.name not in before}
    assert made <= found <= made | {"score", "prune"}
