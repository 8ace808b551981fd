"""prune_post on a small network, through the real pipeline: what is left is solved for, without label or training."""

import dataclasses

import numpy as np
import pytest

from segslim.channels.pruning import Channels
from segslim.errors import UserError
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.reconstruct import kept_of, left_of
from segslim.stages.strategy import resolve
from tests.command import config
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

SMALL = [
    *(*TOWER, "dataset.source.train_images=8", "num_workers=0", "train.iters=8", "train.batch_size=2"),
    *("compress=prune_post", "compress.ratio=0.4", "compress.reconstruct.images=8", "stages.last=[]"),
]


def made(store, *overrides):
    strategy = resolve(config(*SMALL, f"store={store.root}", *overrides))
    return {o.step.label: o.artifact for o in run(plan(strategy, STAGES), store, Silent())}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.slow
def test_the_layers_come_closer_to_the_dense_ones_and_the_channels_stay(store):
    artifacts = made(store)
    pruned, solved = (Checkpoint.load(artifacts[name].path) for name in ("prune", "reconstruct"))
    assert solved.channels == pruned.channels and solved.quantization is None
    assert {name: array.shape for name, array in solved.weights.items()} == {
        name: array.shape for name, array in pruned.weights.items()
    }
    errors = solved.measured["reconstruction"]
    assert any(after < before for before, after, left in errors.values() if not left)
    assert all(after <= before for before, after, _ in errors.values())
    changed = {name for name, array in solved.weights.items() if (array != pruned.weights[name]).any()}
    solved_for = {name for name, (_, _, left) in errors.items() if not left}
    assert solved_for and solved_for <= changed
    assert solved.measured["groups"] == pruned.measured["groups"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["enet", "segformer_b0"])
def test_networks_of_every_kind_are_solved_for(store, model):
    """Transposed and dilated convolutions, linear layers; benchmarks/recovery.py networks has them all."""
    network = [word for word in SMALL if "model." not in word]
    typed = (f"model={model}", "train.learning_rate=0.01", "compress.criterion=l1_norm", "compress.allocation=uniform")
    steps = plan(resolve(config(*network, *typed, f"store={store.root}")), STAGES)
    solved = Checkpoint.load(run(steps, store, Silent())[-1].artifact.path)
    errors = solved.measured["reconstruction"].values()
    assert all(after < before or left for before, after, left in errors)
    assert sum(not left for *_, left in errors) > len(errors) / 3


@pytest.mark.slow
def test_each_step_begins_with_the_dense_weights_of_what_is_left(store):
    artifacts = made(store, "compress.schedule=[0.5,1]")
    dense, pruned, solved = (Checkpoint.load(artifacts[name].path) for name in ("train", "prune 2", "reconstruct 2"))
    begun = left_of(dense.weights, kept_of(pruned.channels, dense.channels))
    errors = solved.measured["reconstruction"]
    changed = {name for name, array in solved.weights.items() if (array != begun[name]).any()}
    assert {name for name, (_, _, left) in errors.items() if not left} <= changed
    assert not changed & {name for name, (_, _, left) in errors.items() if left}
    assert any((pruned.weights[name] != begun[name]).any() for name in begun)  # the first step had solved for others


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits(store, tmp_path):
    first, second = made(store), made(Store(tmp_path))
    for name in ("score", "reconstruct"):
        files = [artifacts[name].manifest["files"] for artifacts in (first, second)]
        assert files[0] == files[1]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("[reconstruct]", "put prune before"),
        ("[quantize,score,prune,reconstruct]", "put quantize after"),
        ("[score,prune,retrain,reconstruct]", "put retrain after"),
    ],
)
def test_it_is_refused_before_any_work_where_it_has_nothing_to_solve(stages, words):
    typed = config(*SMALL, "compress=prune_post_ptq", f"compress.stages={stages}")
    with pytest.raises(UserError, match=words):
        plan(resolve(typed), STAGES)


def test_too_few_images_are_told_before_the_training(tmp_path):
    with pytest.raises(UserError, match=r"7 training images are too few .* at least 8"):
        made(Store(tmp_path), "dataset.source.train_images=7")
    assert not list(tmp_path.glob("artifacts/train-*"))


def test_what_is_left_is_counted_by_the_indices_of_the_network_that_was_there_before():
    before = Channels({"a.weight": {0: [1, 3, 5, 7]}})
    after = dataclasses.replace(before, kept={"a.weight": {0: [3, 7], 1: [0, 2]}})
    assert kept_of(after, before) == {"a.weight": {0: [1, 3], 1: [0, 2]}}
    assert kept_of(after, None) == after.kept
    assert np.all([kept_of(before, before)["a.weight"][0] == list(range(4))])
