"""Killed anywhere, by any signal or by too little memory: the same command then ends as an undisturbed one."""

import itertools
import os
import random
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.command import PRUNE, Typed, figures, finished, forget, forked, manifests, wait_for_stage, weights

pytestmark = pytest.mark.slow
HEADROOM = 0
STUCK_SECONDS = 8  # then it is killed, which is one more fault


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(*PRUNE, cwd=folder)
    return folder


def short_of_memory(pid: int) -> None:
    """Hardly a byte more than it has. (The kernel's own out-of-memory killer sends SIGKILL.)"""
    with suppress(FileNotFoundError, ProcessLookupError):  # on a faster machine it may have ended before
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + HEADROOM
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


def sends(*numbers):
    """One signal after the other, at one hit each."""
    following = itertools.cycle(numbers)

    def hit(pid: int) -> None:
        with suppress(ProcessLookupError):  # on a faster machine it may have ended before
            os.kill(pid, next(following))

    return hit


FAULTS = {
    "SIGKILL": (sends(signal.SIGKILL), {0, -signal.SIGKILL}),
    "SIGTERM and SIGINT": (sends(signal.SIGTERM, signal.SIGINT), {0, 128 + signal.SIGTERM, 128 + signal.SIGINT}),
    # one line where it is Python that gets none; the loader or a library's own threads may end the process in any way,
    # or wait for ever: what counts is that the same command then ends as if nothing had happened
    "no memory": (short_of_memory, None),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name == "SIGKILL" else [pytest.mark.long]) for name in FAULTS]
)
def test_a_run_that_is_hit_in_every_stage_ends_as_an_undisturbed_one(undisturbed, tmp_path, fault, random_seed, record):
    hit, codes = FAULTS[fault]
    stages = manifests(undisturbed / ".segslim")
    generator, tried = random.Random(random_seed), set()
    while True:
        typed = Typed(*PRUNE, cwd=tmp_path)
        stage = wait_for_stage(typed, tmp_path / ".segslim", but=tried)
        if stage is None:
            break
        tried.add(stage)
        begun = time.monotonic()
        time.sleep(generator.uniform(0, 0.8 * stages[stage]["seconds"]))
        hit(typed.pid)
        lost = time.monotonic() - begun
        code = typed.wait_or_kill(STUCK_SECONDS)
        assert codes is None or code in codes, typed.stderr
        if code in (0, 2) or (code > 0 and codes is not None):
            assert typed.stderr.count("\n") == (code != 0) and "Traceback" not in typed.stderr, typed.stderr
        where = "after " * (stage in manifests(tmp_path / ".segslim")) + stages[stage]["stage"]
        record(fault, where, code, lost)
        for key in manifests(tmp_path / ".segslim").keys() - tried:  # done before the hit told: made again, to be hit
            forget(tmp_path / ".segslim", key)
    assert typed.wait() == 0, typed.stderr
    assert tried == stages.keys()
    assert weights(tmp_path / ".segslim") == weights(undisturbed / ".segslim")
    assert figures(tmp_path) == figures(undisturbed)


def _train(folder, save_interval):
    """40 iterations of a tiny network, with dropout and batch norm; its weights go to a file at the end."""
    from segslim.errors import deferred, end_by_signals
    from tests.training.toy import FitOptions, toy_fit, toy_network

    network = toy_network()
    options = FitOptions(iters=40, learning_rate=0.05, eval_interval=9, save_interval=save_interval, seed=7)
    end_by_signals()
    with deferred() as stop:
        try:
            toy_fit(folder / "scratch", network, options, progress=lambda at: (folder / "at").touch(), stop=stop)
        except KeyboardInterrupt as stopped:
            raise SystemExit(stopped.exit_code) from None
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    (folder / "weights").write_bytes(b"".join(state[name].tobytes() for name in sorted(state)))


@pytest.mark.parametrize("save_interval", [1, 7, 1000])
def test_training_that_is_hit_at_random_moments_ends_in_the_same_bits(tmp_path, save_interval, random_seed, record):
    """By SIGTERM and Ctrl-C alone too: with a snapshot every 1000 iterations, it is they that save."""
    generator = random.Random(random_seed)
    straight, hit = tmp_path / "straight", tmp_path / "hit"
    for folder in (straight, hit):
        folder.mkdir()
    forked(_train, straight, 5).join()
    saving = [signal.SIGTERM, signal.SIGINT]
    hits = 0
    while True:
        process = forked(_train, hit, save_interval)
        while process.is_alive() and not (hit / "at").exists():
            time.sleep(0.001)
        process.join(generator.uniform(0, 0.05))
        if not process.is_alive():
            break
        number = generator.choice(saving if save_interval == 1000 else [signal.SIGKILL, *saving])
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, number)
        hits += 1
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 128 + number, -number, 0)  # -number: before or after the handler
        record(number.name, "training", process.exitcode, 0)
        (hit / "at").unlink(missing_ok=True)
    assert process.exitcode == 0 and hits > 0
    assert (hit / "weights").read_bytes() == (straight / "weights").read_bytes()


def test_a_run_with_workers_ends_in_the_same_weights(undisturbed, tmp_path):
    finished(*PRUNE, "num_workers=2", cwd=tmp_path)
    assert weights(tmp_path / ".segslim") == weights(undisturbed / ".segslim")
    assert figures(tmp_path) == figures(undisturbed)
