"""What stages declare to read is what they read: every shipped strategy is run, on a network of four layers."""

import json

import pytest
from hydra import compose, initialize_config_dir

from segslim.pipeline.fingerprint import is_at_or_below
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import ROOT
from tests.pipeline.toy import Silent
from tests.stages.test_data import config
from tests.stages.test_orders import SMALL, SMALL_COMPRESS

pytestmark = [pytest.mark.slow, pytest.mark.long]
LAST = "stages.last=[export,select,evaluate,benchmark,preview]"
FAST = ["benchmark.warmup=0", "benchmark.iters=1", "benchmark.settle=0", "benchmark.seconds=0"]
# but compress=front, whose points are other strategies
STRATEGIES = {file.stem: [f"compress={file.stem}"] for file in sorted((ROOT / "conf" / "compress").glob("*.yaml"))}
del STRATEGIES["front"]
STRATEGIES |= {
    "equal loss": ["compress=prune", "compress.allocation=equal_loss"],
    "by gradients": ["compress=prune", "compress.criterion=taylor", "retrain.distill.kind=logits"],
    "without labels": ["compress=quant", "compress.stages=[quantize,distil]"],
    "drawn labels": ["compress=prune_post", "compress.criterion=fisher"],
    "windows": ["compress=none", "evaluation.crop_size=[64,64]"],
    "floats": ["compress=ptq", "compress.keep_float=auto", "compress.miou_loss=0", "compress.precisions=null"],
    "placed": ["compress=ptq", "compress.miou_loss=0"],
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """{stage: the declared keys that were read}, over all strategies."""
    store = Store(tmp_path_factory.mktemp("store"))
    for typed in STRATEGIES.values():
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            has = compose("config", typed).compress
        own = [f"{key}={value}" for key, value in SMALL_COMPRESS.items() if key.split(".")[1] in has]
        own += ["compress.reconstruct.images=8"] if "reconstruct" in has else []
        typed = [*SMALL, "dataset.source.train_images=8", *own, *typed, LAST, *FAST, f"store={store.root}"]
        run(plan(resolve(config(*typed)), STAGES), store, Silent())
    found: dict[str, set[str]] = {}
    for file in store.root.glob("artifacts/*/manifest.json"):
        manifest = json.loads(file.read_text())
        found.setdefault(manifest["stage"], set()).update(manifest["keys"])
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_all_that_it_declares(keys, name):
    """That it reads nothing else is the pipeline's: each strategy above has run under views that raise."""
    stage = STAGES[name]
    if name not in keys:
        pytest.skip("the timings of this machine let no pruning reach the latency that was asked for")
    within = {key for key in stage.ignores if any(is_at_or_below(key, above) for above in stage.reads)}
    assert {*stage.reads, *stage.ignores} - within - keys[name] == set()
