import os
import signal
import subprocess
import sys

from segslim.pipeline.store import gate, in_use, used
from tests.command import ROOT

HOLD = """
import sys
from pathlib import Path
from segslim.pipeline.store import in_use
with in_use(Path(sys.argv[1]), ["ab", "cd"]):
    print("signed in", flush=True)
    sys.stdin.readline()
"""


def _used(root):
    with gate(root):
        return used(root)


def test_what_several_runs_use_is_in_use_until_each_of_them_ends(tmp_path):
    with in_use(tmp_path, ["ab", "cd"]):
        with in_use(tmp_path, ["cd", "ef"]):
            assert _used(tmp_path) == {"ab", "cd", "ef"}
        assert _used(tmp_path) == {"ab", "cd"}
    assert _used(tmp_path) == set()
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["gate.lock"]


def test_a_killed_run_uses_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"signed in\n"
    assert _used(tmp_path) == {"ab", "cd"}
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert _used(tmp_path) == set()
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["gate.lock"]
