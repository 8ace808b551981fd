"""Eight processes on one store, some of them killed, under a clock that jumps: each work is done, and whole."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace

from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure", "compare"]
PROCESSES = 8
YEARS = 10 * 365 * 86400


def _run(folder):
    steps = plan(toy.strategy(CHAIN, toy.config(folder)), toy.STAGES)
    run(steps, Store(folder / "store"), toy.Silent())


def _start(folder, work=_run, *more):
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder, *more))
    process.start()
    return process


def _whole(folder):
    """The stages that are committed; each file is what its manifest says, or the store does not give it."""
    store = Store(folder / "store")
    manifests = [json.loads(file.read_text()) for file in (folder / "store" / "artifacts").glob("*/manifest.json")]
    assert all(store.find(manifest["stage"], manifest["fingerprint"]) for manifest in manifests)
    return sorted(manifest["stage"] for manifest in manifests)


def test_processes_that_are_killed_leave_the_work_to_the_others(tmp_path, random_seed):
    generator = random.Random(random_seed)
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        workers = [_start(folder) for _ in range(PROCESSES)]
        for victim in generator.sample(workers, PROCESSES - 2):
            time.sleep(generator.uniform(0, 0.01))
            victim.kill()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers].count(0) >= 2
        assert _whole(folder) == ["compare", "make", "measure", "measure", "scale"]
        assert not list((folder / "store" / "work").glob("*/artifact"))  # scratch may stay of who died after its commit


def _run_until(folder, moment):
    """Kills itself before the file operation of that number; leaves the number of all of them."""
    count = itertools.count()
    changes = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime"}
    sys.addaudithook(
        lambda event, _: event in changes and next(count) == moment and os.kill(os.getpid(), signal.SIGKILL)
    )
    _run(folder)
    (folder / "operations").write_text(str(next(count)))


def test_a_process_that_is_killed_at_any_file_operation_leaves_a_store_to_go_on_from(tmp_path, random_seed):
    whole = tmp_path / "whole"
    whole.mkdir()
    _start(whole, _run_until, -1).join()
    for moment in random.Random(random_seed).sample(range(int((whole / "operations").read_text())), 30):
        folder = tmp_path / str(moment)
        folder.mkdir()
        killed = _start(folder, _run_until, moment)
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        _run(folder)
        assert _whole(folder) == _whole(whole) and len(toy.runs(folder)) <= len(toy.runs(whole)) + 1
        values = [
            sorted(file.read_text() for file in each.glob("store/artifacts/*/[!m]*.json")) for each in (folder, whole)
        ]
        assert values[0] == values[1] and not list((folder / "store" / "work").glob("*/artifact"))


def _run_version(folder, version):
    stages = {**toy.STAGES, "scale": replace(toy.STAGES["scale"], version=version)}
    steps = plan(toy.strategy(CHAIN, toy.config(folder)), stages)
    outcomes = run(steps, Store(folder / "store"), toy.Silent())
    (scaled,) = (outcome for outcome in outcomes if outcome.step.stage.name == "scale")
    assert scaled.artifact.manifest["recipe"]["version"] == version


def test_two_versions_of_the_code_share_what_they_have_in_common(tmp_path):
    workers = [_start(tmp_path, _run_version, 1 + number % 2) for number in range(PROCESSES)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert sorted(toy.runs(tmp_path)) == sorted(["make", "measure", *2 * ["scale", "measure", "compare"]])


def test_processes_that_find_the_same_damage_make_it_again_once(tmp_path):
    _run(tmp_path)
    done = len(toy.runs(tmp_path))
    for value in (tmp_path / "store" / "artifacts").glob("*/*.json"):
        if value.name != "manifest.json":
            value.write_text("rotten")
    workers = [_start(tmp_path) for _ in range(PROCESSES)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert len(toy.runs(tmp_path)) == 2 * done and len(_whole(tmp_path)) == done
    assert len(list((tmp_path / "store" / "aside").iterdir())) == done


def test_no_clock_decides_anything(tmp_path):
    """Everything in the store is of ten years ago, then of ten years hence: it is whole, and its locks are free."""
    _run(tmp_path)
    done = toy.runs(tmp_path)
    for shift in (-YEARS, YEARS):
        for path in (tmp_path / "store").rglob("*"):
            os.utime(path, (time.time() + shift, time.time() + shift))
        _run(tmp_path)
    assert toy.runs(tmp_path) == done
