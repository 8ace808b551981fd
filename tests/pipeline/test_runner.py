import errno
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from segslim.commands import main
from segslim.data.loading import map_in_order
from segslim.errors import UserError
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.stage import stage
from segslim.pipeline.store import Store
from tests.pipeline import toy

CHAIN = ["make", "scale", "measure", "compare"]


def _run(folder, **changes):
    config = toy.config(folder, **changes)
    observer = toy.Silent()
    outcomes = run(plan(toy.strategy(CHAIN, config), toy.STAGES), Store(folder / "store"), observer)
    return outcomes, observer


def test_the_second_run_does_no_work_and_says_so_stage_by_stage(tmp_path):
    first, _ = _run(tmp_path)
    second, observer = _run(tmp_path)
    assert toy.runs(tmp_path) == ["make", "scale", "measure", "measure", "compare"]
    assert observer.heard == [("cached", outcome.step.label) for outcome in first]
    assert [o.artifact.manifest for o in second] == [o.artifact.manifest for o in first]
    assert toy.value(second[-1]) == 3


def test_what_is_asked_for_again_is_made_again_with_all_that_was_made_from_it(tmp_path):
    _run(tmp_path)
    config = toy.config(tmp_path)
    steps, store, observer = plan(toy.strategy(CHAIN, config), toy.STAGES), Store(tmp_path / "store"), toy.Silent()
    outcomes = run(steps, store, observer, again=steps.made_by(["measure"]))
    assert [o.step.stage.name for o in outcomes if not o.cached] == ["measure", "measure", "compare"]
    assert toy.value(outcomes[-1]) == 3 and not list((tmp_path / "store" / "trash").iterdir())
    assert all(outcome.cached for outcome in run(steps, store, observer))


def test_a_sweep_shares_what_does_not_differ(tmp_path):
    for factor in (3, 4, 5):
        _run(tmp_path, factor=factor)
    assert toy.runs(tmp_path).count("make") == 1
    assert toy.runs(tmp_path).count("measure") == 1 + 3


def test_a_stage_that_fails_keeps_what_was_committed_and_leaves_nothing_half_written(tmp_path):
    with pytest.raises(UserError, match="scale fails"):
        _run(tmp_path, fail=True)
    assert not list((tmp_path / "store" / "work").iterdir())
    assert [folder.name.split("-")[0] for folder in (tmp_path / "store" / "artifacts").iterdir()] == ["make"]
    _run(tmp_path)
    assert toy.runs(tmp_path).count("make") == 1


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of the first stage."""
    store = Store(tmp_path / "store")
    key = plan(toy.strategy(CHAIN, toy.config(tmp_path)), toy.STAGES).steps[0].fingerprint
    program = (
        "import sys; from pathlib import Path; from segslim.pipeline.store import Store\n"
        f"with Store(Path({str(store.root)!r})).lock({key!r}, waiting=lambda holder: None):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    _, observer = _run(tmp_path)
    assert ("waiting", "make") not in observer.heard and ("finished", "make") in observer.heard


@pytest.mark.timeout(60)
def test_a_process_that_is_stopped_with_the_lock_is_waited_for_and_that_is_said(tmp_path, holder, monkeypatch):
    os.kill(holder.pid, signal.SIGSTOP)
    told = []
    monkeypatch.setattr(toy.Silent, "waiting", lambda observer, step, who: told.append(who) or holder.kill())
    _, observer = _run(tmp_path)
    assert told == [f"process {holder.pid} on {socket.gethostname()}"]
    assert holder.wait() == -signal.SIGKILL and ("finished", "make") in observer.heard


REFUSALS = {
    "ulimit -f": OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    "ulimit -u": RuntimeError("can't start new thread"),
    "num_workers": BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    "memory": MemoryError(),
}


@pytest.mark.parametrize("remedy", REFUSALS)
def test_what_the_machine_refuses_a_stage_is_one_line_with_the_remedy(tmp_path, remedy):
    @stage(gives="checkpoint")
    def refused():
        raise REFUSALS[remedy]

    with pytest.raises(UserError, match=f"stage 'refused': .*{remedy}.*; what is finished is kept"):
        run(plan([("refused", {})], {"refused": refused}), Store(tmp_path), toy.Silent())


NOBODY = 65534


def _as_nobody(function, *arguments):
    """Calls a function as another user, in a process of its own; returns the line that it ended in, or ""."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    context = multiprocessing.get_context("fork")
    said, saying = context.Pipe(duplex=False)

    def work():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            function(*arguments)
            saying.send("")
        except Exception as error:
            saying.send(str(error) if isinstance(error, UserError) else f"Traceback: {error!r}")

    process = context.Process(target=work)
    process.start()
    process.join(60)
    return said.recv()


@pytest.fixture
def shared_folder():
    """One that every user may enter, as those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_store_of_another_user_can_be_looked_at_and_is_refused_to_a_run_in_one_line(shared_folder, capfd):
    _run(shared_folder)
    store = str(shared_folder / "store")
    assert re.fullmatch(
        r"store=.*store: cannot be written \(Permission denied\): give .*", _as_nobody(_run, shared_folder)
    )
    for words in (["list"], ["verify"], ["collect", "--down-to", "0B"]):
        assert _as_nobody(main, ["store", "--store", store, *words]) == ""
    out, err = capfd.readouterr()
    assert "5 artifacts: 0 damaged" in out
    assert err.count("\n") == 1 and "Permission denied" in err
    (shared_folder / "store" / "artifacts").chmod(0o700)
    for words in (["list"], ["verify"]):
        assert _as_nobody(main, ["store", "--store", store, *words]) == ""
    assert capfd.readouterr().err.count("Permission denied") == 2


def _load_by_workers(folder):
    @stage(gives="checkpoint")
    def loaded():
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        return list(map_in_order(str, range(4), 2))

    run(plan([("loaded", {})], {"loaded": loaded}), Store(folder / "store"), toy.Silent())


def test_no_process_more_than_ulimit_u_is_one_line(shared_folder):
    shared_folder.chmod(0o777)
    assert re.fullmatch(
        "stage 'loaded': .*ulimit -u, or lower num_workers; what is finished is kept",
        _as_nobody(_load_by_workers, shared_folder),
    )
