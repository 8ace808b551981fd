"""What of a strategy cannot fit the network is told before that is trained."""

import pytest

from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.stage import read_json
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import config
from tests.data import layouts
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

SMALL = [
    *TOWER,
    *("train.iters=2", "train.batch_size=2", "num_workers=0"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def _run(store, *overrides, stages=STAGES):
    steps = resolve(config(*SMALL, f"store={store.root}", *overrides))
    made = run(plan([step for step in steps if step[0] in stages], STAGES), store, Silent())
    return [outcome.artifact.path for outcome in made]


WRONG = {
    "a layer to skip": (
        ["compress=prune", "compress.skip=[head,sixth]"],
        "compress.skip: 'sixth' matches none of the 4",
    ),
    "what skipped layers leave": (
        ["compress=prune", "compress.allocation=equal_loss", "compress.ratio=0.97", "compress.skip=[second]"],
        "cannot remove 0.970 of the FLOPs: at most 0.938 can be removed with align=1",
    ),
    "what a global allocation leaves": (
        ["compress=prune_taylor", "compress.ratio=0.995"],
        "cannot remove 0.995 of the FLOPs: at most 0.979 can be removed with align=1",
    ),
    "a layer to keep float": (["compress=ptq", "compress.keep_float=[sixth]"], "compress.keep_float=sixth: fits no"),
    "layers to train as int8": (
        ["compress=quant", "compress.qat.quantizable_layer_type=[Linear]"],
        "compress.qat.quantizable_layer_type=[Linear]: the network has no layer of these types",
    ),
    "a size between those it takes": (
        ["model.network._target_=tests.channels.small.EvenSizes", "dataset.size=[65,64]"],
        "give multiples of 32, as in dataset.size=[96,64]",
    ),
    "images to calibrate on": (
        ["compress=ptq", "dataset.source.train_images=3"],
        "dataset: 3 training images are too few to calibrate on",
    ),
}


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_what_no_training_can_fix_is_told_before_it(store, overrides, words):
    with pytest.raises(UserError) as told:
        _run(store, *overrides)
    assert words in str(told.value)
    assert not list(store.root.glob("artifacts/train-*")) and not list(store.root.glob("work/*"))


def test_a_size_that_is_left_open_is_tried_before_the_training(store):
    network = "model.network._target_=tests.channels.small.OneSize"
    with pytest.raises(
        UserError, match=r"^export.size=dynamic: OneSize does not run at every size \(.+\); give export."
    ):
        _run(store, network, "export.size=dynamic")


def test_strategies_of_one_network_share_its_training_bit_by_bit(tmp_path):
    """What is tried before must leave no trace: neither in the weights, nor in what is drawn."""
    files = []
    for number, strategy in enumerate(
        (["compress=none"], ["compress=prune", "compress.skip=[head]"], ["compress=quant"])
    ):
        *_, trained = _run(Store(tmp_path / str(number)), *strategy, stages=("data", "train"))
        files.append((trained.name, (trained / "weights.safetensors").read_bytes()))
    assert files[0] == files[1] == files[2]


def test_images_of_8_x_8_in_256_classes_train_in_batches_of_more_than_there_are(tmp_path):
    layouts.file_list(tmp_path / "data", count=3, size=(8, 8))
    own = ["dataset=file_list", f"dataset.root={tmp_path / 'data'}", "dataset.num_classes=256", "dataset.size=[8,8]"]
    own += ["dataset.source.train_list=train.txt", "dataset.source.val_list=val.txt"]
    network = ["~model.network", "+model.network={_target_:tests.channels.small.Tower,num_classes:256}"]
    options = ["model.loss.coef=[1.0]", "train.iters=2", "train.batch_size=16", "num_workers=64", "engine=onnxruntime"]
    store = Store(tmp_path / "store")
    steps = resolve(config(*own, *network, *options, f"store={store.root}"))
    *_, evaluated = run(
        plan([step for step in steps if step[0] not in ("benchmark", "preview")], STAGES), store, Silent()
    )
    assert len(read_json(evaluated.artifact.path, "metrics")["class_iou"]) == 256


def test_a_ratio_that_only_a_second_step_can_reach_is_not_refused(tmp_path):
    ratio, schedule = "compress.ratio=0.995", "compress.schedule=[0.5,1]"
    _run(Store(tmp_path), "compress=prune_taylor", ratio, schedule, stages=("data", "train"))
