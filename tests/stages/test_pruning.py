"""score, prune and retrain on a small network, through the real pipeline."""

import json

import numpy as np
import pytest

from segslim.channels import ChannelGraph
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import config
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

pytestmark = pytest.mark.slow
SMALL = [
    "compress=prune",
    "compress.ratio=0.2",
    "compress.stages=[score,prune,retrain]",
    "stages.last=[]",
    "compress.allocation=uniform",
    "compress.align=1",
    "compress.taylor.batches=2",
    *TOWER,
    *(f"{stage}.{key}={value}" for stage in ("train", "retrain") for key, value in (("iters", 2), ("batch_size", 2))),
    "num_workers=0",
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Runs a strategy in one store; returns the folder of each step."""
    store = Store(tmp_path_factory.mktemp("store"))

    def made(*overrides):
        typed = config(*SMALL, f"store={store.root}", *overrides)
        return {o.step.label: o.artifact.path for o in run(plan(resolve(typed), STAGES), store, Silent())}

    return made


def flops(folder):
    return ChannelGraph.trace(Checkpoint.load(folder).network(), (1, 3, 64, 64)).flops()


def test_two_steps_remove_as_many_flops_as_one(artifacts):
    one = artifacts("compress.ratio=0.4")
    two = artifacts("compress.ratio=0.4", "compress.schedule=[0.5,1]")
    dense = flops(one["train"])
    assert 1 - flops(two["prune"]) / dense == pytest.approx(0.2, abs=0.01)
    assert 1 - flops(two["prune 2"]) / dense == pytest.approx(0.4, abs=0.01)
    assert 1 - flops(one["prune"]) / dense == pytest.approx(0.4, abs=0.01)
    assert flops(two["retrain 2"]) == flops(two["prune 2"])


def test_channels_of_the_second_step_are_those_of_the_dense_network(artifacts):
    two = artifacts("compress.ratio=0.4", "compress.schedule=[0.5,1]")
    first, second = (json.loads((two[name] / "channels.json").read_text())["kept"] for name in ("prune", "prune 2"))
    assert set(second["second.weight"]["0"]) < set(first["second.weight"]["0"])
    dense = Checkpoint.load(two["train"]).network().state_dict()["second.weight"].numpy()
    pruned = Checkpoint.load(two["prune"]).network().state_dict()["second.weight"].numpy()
    axes = first["second.weight"]
    np.testing.assert_array_equal(pruned, dense[axes["0"]][:, axes["1"]])


def test_a_pruned_network_is_retrained(artifacts):
    made = artifacts("compress.ratio=0.4", "retrain.evaluate_start=false")
    before, after = (Checkpoint.load(made[name]).network().state_dict() for name in ("prune", "retrain"))
    assert all(before[name].shape == after[name].shape for name in before)
    assert any((before[name].numpy() != after[name].numpy()).any() for name in before)


def test_retraining_never_ends_worse_than_it_began(artifacts):
    made = artifacts("compress.ratio=0.4", "retrain.learning_rate=0.000001")
    measured = Checkpoint.load(made["retrain"]).measured["training"]
    assert measured["history"][0]["iteration"] == 0
    assert measured["miou"] == max(entry["miou"] for entry in measured["history"] if "miou" in entry)


def test_scores_by_gradient_follow_the_seed_and_leave_the_weights(artifacts):
    made = artifacts("compress.ratio=0.4", "compress.criterion=taylor", "compress.allocation=global")
    scores = (made["score"] / "importance.safetensors").read_bytes()
    again = artifacts("compress.ratio=0.4", "compress.criterion=taylor", "retrain.iters=3")
    assert again["score"] == made["score"]
    more = artifacts("compress.ratio=0.4", "compress.criterion=taylor", "compress.taylor.batches=3")
    assert (more["score"] / "importance.safetensors").read_bytes() != scores


def test_layers_to_skip_keep_their_filters_and_a_pattern_without_one_is_named(artifacts):
    made = artifacts("compress.ratio=0.31", "compress.skip=[second]")
    kept = json.loads((made["prune"] / "channels.json").read_text())["kept"]
    assert "0" not in kept["second.weight"] and "0" in kept["first.weight"]
    with pytest.raises(UserError, match=r"compress.skip: 'sixth' matches none of the 4 layers: first, head, second"):
        artifacts("compress.skip=[sixth]")
