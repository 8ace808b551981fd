"""Eight processes on one store, some of them killed, under a clock that jumps: each work is done, and whole."""

import json
import multiprocessing
import os
import random
import time

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


def _start(folder):
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder,))
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
    for turn in range(20):
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
