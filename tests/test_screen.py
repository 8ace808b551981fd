"""What reaches the screen is what was meant, whatever names hold; and streams that nobody reads stop no work."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from segslim.reporting.terminal import Terminal
from segslim.screen import Screen
from segslim.streams import printable, printable_line
from tests.command import ROOT

NAMES = {
    "photos [old]/x[/b]": "photos [old]/x[/b]",
    ":smile: [bold red]": ":smile: [bold red]",
    "数据/é.png": "数据/é.png",
    "\x1b]0;owned\x07\x1b[31m": r"\x1b]0;owned\x07\x1b[31m",
    "\x9b31m": r"\x9b31m",
    "gpj.\u202egnp": r"gpj.\u202egnp",
    os.fsdecode(b"\xca\xd3.png"): r"\xca\xd3.png",
    "\r\b\v": r"\x0d\x08\x0b",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_shown_as_it_is_and_does_nothing(name):
    screen = Screen(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    table = Table("name")
    table.add_row(name)
    screen.print(name)
    screen.print(name, style="bold")
    screen.print(table)
    shown = screen.file.getvalue()
    assert shown.count(NAMES[name]) == 3 and not {*"\x1b\x07\x08\x0b\x9b\u202e"} & {*shown}


def test_no_second_line_can_be_forged():
    assert printable_line("a\nerror: b\u2028c") == r"a\nerror: b\u2028c"
    assert printable("a\n\tb") == "a\n\tb"


SAY = """
from segslim import streams
streams.prepare()
import os, sys
with open("kept.txt", "w") as file:
    print("said" * 10_000)
    print("told", file=sys.stderr)
    os.write(file.fileno(), b"kept")
    file.write(" %s %s" % (sys.argv[1], sys.getfilesystemencoding()))
print("said" * 10_000)
"""


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&- <&-", "| true", "2>&1 | head -c 1", ">/dev/full 2>&1"])
def test_a_stream_that_is_closed_full_or_not_read_stops_no_work(tmp_path, redirected):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = f'set -o pipefail; "$0" -c "$1" 数据 {redirected}'
    done = subprocess.run(["bash", "-c", command, sys.executable, SAY], cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "kept.txt").read_text() == "kept 数据 utf-8"


@pytest.mark.parametrize("argument", [b"a\xca.png", b"store=\xff"])
def test_an_argument_that_is_not_utf8_is_one_line(tmp_path, argument):
    done = subprocess.run([sys.executable, ROOT / "run.py", argument], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"is not in UTF-8: rename it" in done.stderr


def test_the_descriptors_are_restored_where_printing_fails(tmp_path):
    config = SimpleNamespace(
        compress=SimpleNamespace(name="[/]", criterion="l1", allocation="global"),
        model=SimpleNamespace(name="x[/b]"), dataset=SimpleNamespace(name="d", size=(8, 8)), seed=0, verbose=False,
    )  # fmt: skip
    before = [os.fstat(number).st_ino for number in (1, 2)]
    terminal = Terminal(config, tmp_path / "run.log")
    with pytest.raises(AttributeError), terminal:
        assert os.fstat(1).st_ino != before[0]
        terminal._warnings.texts.append(None)  # what cannot be printed
        raise RuntimeError("in a stage")
    assert [os.fstat(number).st_ino for number in (1, 2)] == before


@pytest.mark.slow
def test_a_folder_that_is_markup_in_a_posix_locale_and_read_by_nobody(tmp_path):
    folder = tmp_path / "数据 x[/b] [old]"
    for kind, channels in (("images", 3), ("labels", 1)):
        (folder / kind).mkdir(parents=True)
        for at in range(4):
            pixels = np.full((64, 64, channels), at % 2, np.uint8).squeeze()
            Image.fromarray(pixels if at else pixels[..., 0] if channels == 3 else pixels).save(
                folder / kind / f"{at}.png"
            )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = ["dataset=folder", "dataset.size=[64,64]", "dataset.num_classes=2", "compress.stages=[data]"]
    command = [sys.executable, str(ROOT / "run.py"), *options, f"dataset.root='{folder}'", f"store={tmp_path / 's'}"]
    done = subprocess.run([*command, "hydra.run.dir=out"], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0 and f"warning: {folder}" in done.stdout.decode(), done.stderr
    unread = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *command, "hydra.run.dir=again"]
    assert subprocess.run(unread, cwd=tmp_path).returncode == 0 and Path(tmp_path, "again", "report.html").exists()
