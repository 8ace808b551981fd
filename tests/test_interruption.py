"""Signals end a process in one line and with the shell's exit code, wherever it is; without Paddle."""

import signal
import subprocess
import sys
import textwrap

import pytest

from segslim.errors import AT_ONCE
from tests.command import ROOT

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140)]


def _run(script):
    """What a process that runs the script does; raise_signal(N) stands for a signal that came."""
    prelude = f"""
        import sys
        from signal import SIGINT, SIGTERM, raise_signal
        sys.path.insert(0, {str(ROOT)!r})
        from segslim.errors import deferred, end_by_signals
        end_by_signals()
    """
    whole = textwrap.dedent(prelude) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_process_in_one_line(number, code):
    ended = _run(f"raise_signal({int(number)}); print('went on')")
    assert ended.returncode == code and ended.stdout == ""
    assert ended.stderr == f"stopped by {number.name}: what is finished is kept; the same command goes on from there\n"


def test_it_is_told_on_the_screen_though_standard_error_is_a_file_by_now(tmp_path):
    ended = _run(
        f"import os; os.dup2(os.open({str(tmp_path / 'log')!r}, os.O_CREAT | os.O_WRONLY), 2); raise_signal(SIGINT)"
    )
    assert ended.stderr.startswith("stopped by SIGINT") and (tmp_path / "log").read_text() == ""


def test_a_fork_of_the_process_ends_without_a_word():
    ended = _run("import os; child = os.fork() or raise_signal(SIGTERM); print(os.waitpid(child, 0)[1] >> 8)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "143\n", "")


DEFERRED = {
    "two at once are one": (
        "assert stop() == 0; raise_signal(SIGTERM); raise_signal(SIGINT)\n"
        "    print(stop(), flush=True); raise SystemExit(5)",
        (5, "15\n"),
    ),
    "a second one later does not wait": (
        f"raise_signal(SIGTERM); time.sleep({AT_ONCE + 0.1}); raise_signal(SIGINT); print('went on')",
        (130, ""),
    ),
    "one that nobody asks for is not lost": ("raise_signal(SIGTERM)\nprint('went on')", (143, "")),
}


@pytest.mark.parametrize(("body", "ending"), DEFERRED.values(), ids=DEFERRED)
def test_signals_can_be_deferred(body, ending):
    """`stop()` gives the number of the first signal that came, or 0."""
    ended = _run(f"import time\nwith deferred() as stop:\n    {body}")
    assert (ended.returncode, ended.stdout) == ending, ended.stderr
