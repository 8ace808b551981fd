"""The front of a network of four layers: one command from its weights to a point that holds what was asked."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segslim.errors import UserError
from segslim.front import explore, first
from segslim.front.points import DENSE, Point
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import ROOT, config, segslim
from tests.pipeline.toy import Silent
from tests.stages.test_data import TOWER

TYPED = (
    *(*TOWER, "dataset.source.train_images=8", "num_workers=0", "engine=onnxruntime", "train.iters=8"),
    *(
        "benchmark.warmup=0",
        "benchmark.iters=2",
        "benchmark.seconds=0",
        "benchmark.settle=0",
        "compress.calibration.images=4",
        "compress.reconstruct.images=8",
    ),
    *("compress.front.ratios=[0.2,0.6]", "compress.front.align=[1]"),
)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A process of its own takes seconds to import Paddle."""
    monkeypatch.setattr("segslim.front.workers.MOST_WORKERS", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def explored(store, folder, *more):
    typed = ["compress=front", *TYPED, *more]
    told = []
    composed = config(*typed, f"store={store.root}")
    chosen, front = explore(composed, store, Silent(), lambda *line: told.append(line), folder, typed)
    return chosen, front, told


@pytest.mark.slow
def test_every_point_alone_is_a_command_with_nothing_left_to_do_and_a_wider_front_keeps_it(store, tmp_path):
    _, front, _ = explored(store, tmp_path, "compress.front.points=3", "compress.flops_ratio=0.7")
    assert [point["name"] for point in front["points"]] == ["dense", "dense int8", "0.6", "0.6 int8"]
    for point in front["points"]:
        steps = plan(resolve(config(*point["overrides"], f"store={store.root}")), STAGES)
        listener = Silent()
        run(steps, store, listener, until="benchmark")
        assert {what for what, _ in listener.heard} == {"cached"}, point["name"]
        assert (Path(point["deployment"]) / "model.onnx").is_file()
        assert (tmp_path / Path(point["page"]).relative_to("points")).is_file()
    explored(store, tmp_path, "compress.front.points=3", "compress.flops_ratio=0.7", "benchmark.again=true")
    for report in map(json.loads, (file.read_text() for file in tmp_path.rglob("report.json"))):
        made = {stage["name"] for stage in report["stages"] if not stage["cached"]}
        assert "benchmark" in made and not made & {"data", "train", "score", "prune", "export", "baseline export"}
    more = ["compress.front.points=5", "compress.flops_ratio=0.7", "compress.retrain=true", "retrain.iters=2"]
    chosen, front, told = explored(store, tmp_path, *more)
    made = [name for name, took, _ in told if took != "cached"]
    assert made[:2] == ["0.3", "0.3 int8"] and made[2].endswith(" retrained") and len(made) == 3
    deployed = plan(resolve(chosen), STAGES).results["deployment"].fingerprint[:20]
    assert deployed in next(point["deployment"] for point in front["points"] if point["name"] == front["chosen"])


@pytest.mark.slow
def test_an_engine_that_fails_on_one_point_leaves_the_others_and_warnings_name_theirs(
    store, tmp_path, monkeypatch, caplog
):
    benchmark = sys.modules["segslim.stages.benchmark"]
    opened = benchmark.timed_sessions

    def failing(wanted, *rest, **options):
        if any(deployment.precision.is_int8 for deployment, _, _ in wanted.values()):
            raise RuntimeError("no kernel")
        return opened(wanted, *rest, **options)

    monkeypatch.setattr(benchmark, "timed_sessions", failing)
    monkeypatch.setattr("segslim.hardware.BUSY", -1)  # every machine is
    _, front, _ = explored(store, tmp_path, "compress.front.points=3", "benchmark.iters=3")
    assert {failed["name"] for failed in front["failed"]} == {"dense int8", "0.6 int8"}
    assert [point["name"] for point in front["points"]] == ["dense", "0.6"]
    (busy,) = (text for text in caplog.messages if "busy machine" in text)
    assert busy.startswith("0.6: ") and "also dense" in busy


@pytest.mark.slow
def test_a_bound_that_no_point_holds_is_named_and_ends_in_code_3(tmp_path, monkeypatch):
    """As a user types it, and so by processes side by side."""
    shutil.copy(ROOT / "tests" / "channels" / "small.py", tmp_path / "mine.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    typed = [text.replace("tests.channels.small", "mine") for text in TYPED]
    bound = ["compress.front.points=3", "compress.size_mb=0.000001", "hydra.run.dir=out"]
    done = segslim("compress=front", *typed, *bound, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    front = json.loads((tmp_path / "out" / "report.json").read_text())["front"]
    assert front["missed"] == ["size_mb"] and "compress.size_mb" in done.stdout
    assert front["chosen"] in (tmp_path / "out" / "report.html").read_text()
    table = done.stdout[done.stdout.index("point ") : done.stdout.index("compress.size_mb")]
    assert max(map(len, table.splitlines())) <= 80


REFUSED = {
    "front.points": ["compress.front.points=1"],
    "compress.ratio": ["compress.ratio=0.3"],
    "points=4": ["compress.front.points=4"],
    "front.ratios": ["compress.front.ratios=[0.5,0.51]"],
    "flops_ratio": ["compress.flops_ratio=0.1"],
    "soft": ["compress.soft=[latency_ms]"],
    "goal": ["compress.goal=latency", "compress.size_mb=1"],
    "goal=miou": ["compress.goal=miou"],
}


@pytest.mark.parametrize("key", REFUSED)
def test_bounds_that_cannot_choose_are_refused_before_any_work(key):
    with pytest.raises(UserError, match=key) as error:
        first(config("compress=front", *REFUSED[key]))
    assert "\n" not in str(error.value)


def test_the_command_of_a_point_keeps_what_was_typed_for_it():
    typed = shlex.split(
        "compress=front model=unet compress.miou_loss=0.01 compress.calibration.images=8 compress.skip=[a]"
    )
    assert Point(0.5, 16).overrides(typed) == shlex.split(
        "model=unet compress.skip=[a] compress=prune_post compress.ratio=0.5 compress.align=16 benchmark.advice=false"
    )
    assert Point(precision="int8").overrides(typed) == shlex.split(
        "model=unet compress.calibration.images=8 compress=ptq benchmark.advice=false"
    )
    assert DENSE.overrides(typed) == ["model=unet", "compress=none", "benchmark.advice=false"]


def test_where_there_are_no_semaphores_points_are_made_one_after_the_other(tmp_path):
    """/dev/shm can only be read, for this process alone."""
    program = "from segslim.front.workers import workers\nwith workers() as make: print(make([[]]))"
    hidden = 'mount -t tmpfs -o ro tmpfs /dev/shm || exit 77; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", program]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this process may not mount a tmpfs: {done.stderr.strip()}")
    assert done.stdout == "[[]]\n", done.stderr
