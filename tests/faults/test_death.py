"""Killed anywhere, by any signal or for want of memory: the same command ends as if nothing had been."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.faults.command import TINY, Typed, figures, finished, forget, manifests, wait_for_stage, weights

pytestmark = pytest.mark.slow
COMMAND = (*TINY, "compress=prune")
HEADROOM = 0
STUCK_SECONDS = 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(*COMMAND, cwd=folder)
    return folder


def short_of_memory(pid: int) -> None:
    """Hardly a byte more than it has. (Where the kernel kills for want of memory, it sends SIGKILL.)"""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


def sends(number):
    return lambda pid: os.kill(pid, number)


FAULTS = {
    "SIGKILL": (sends(signal.SIGKILL), {-signal.SIGKILL}),
    "SIGTERM": (sends(signal.SIGTERM), {128 + signal.SIGTERM}),
    "SIGINT": (sends(signal.SIGINT), {128 + signal.SIGINT}),
    # told in words, where it is Python that gets none; a library's own threads may end the process, or wait for ever
    "no memory": (short_of_memory, {0, 2, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_is_hit_in_every_stage_ends_as_an_undisturbed_one(undisturbed, tmp_path, fault, random_seed, record):
    hit, codes = FAULTS[fault]
    stages = manifests(undisturbed / ".segslim")
    generator, tried = random.Random(random_seed), set()
    while True:
        typed = Typed(*COMMAND, cwd=tmp_path)
        stage = wait_for_stage(typed, tmp_path / ".segslim", but=tried)
        if stage is None:
            break
        tried.add(stage)
        begun = time.monotonic()
        time.sleep(generator.uniform(0, 0.8 * stages[stage]["seconds"]))
        hit(typed.pid)
        lost = time.monotonic() - begun
        code = typed.wait_or_kill(STUCK_SECONDS)
        assert code in codes, typed.stderr
        if code >= 0:
            assert typed.stderr.count("\n") == (code != 0) and "Traceback" not in typed.stderr, typed.stderr
        where = "after " * (stage in manifests(tmp_path / ".segslim")) + stages[stage]["stage"]
        record(fault, where, code, lost)
        if code == 0:  # it needed no more; those after it are made again
            for key in stages.keys() - tried:
                forget(tmp_path / ".segslim", key)
    assert typed.wait() == 0, typed.stderr
    assert tried == stages.keys()
    assert weights(tmp_path / ".segslim") == weights(undisturbed / ".segslim")
    assert figures(tmp_path) == figures(undisturbed)
