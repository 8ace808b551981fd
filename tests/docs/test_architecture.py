"""docs/architecture.md shows the rooms and the imports between them as they are."""

import re
import subprocess
import sys

import grimp
import pytest

from tests.command import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BELOW = set(re.findall(r"`(\w+)`", next(line for line in PAGE.splitlines() if line.startswith("Below them all"))))


@pytest.fixture(scope="module")
def imports() -> set[tuple[str, str]]:
    """(room, room that it imports), of the rooms and files right below segslim/."""
    graph = grimp.build_graph("segslim", cache_dir=None)
    names = (
        (a.split(".")[1:2], b.split(".")[1:2])
        for a in graph.modules
        for b in graph.find_modules_directly_imported_by(a)
    )
    entries = ("__main__", "commands")  # what `python -m segslim.ROOM` imports is no part of the room
    return {(a[0], b[0]) for a, b in names if a and b and a != b and a[0] != entries[0] and b[0] != entries[1]}


def test_the_picture_has_the_imports_that_there_are(imports):
    drawn = {
        (room, imported)
        for room, several in re.findall(r"^  (\w+) --> (.+)$", PAGE, re.MULTILINE)
        for imported in several.split(" & ")
    }
    assert drawn == {(a, b) for a, b in imports if a not in BELOW and b not in BELOW}


def test_what_is_below_imports_nothing_above(imports):
    assert {(a, b) for a, b in imports if a in BELOW and b not in BELOW} == set()


def test_every_room_has_a_row():
    rooms = {folder.parent.name for folder in (ROOT / "segslim").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == rooms


LIGHT = {  # what importing modules must not import
    "stages": "paddle",
    "deployment.export, segslim.deployment.engines.tensorrt, segslim.deployment.engines.openvino": "paddle",
    "deployment": "paddle onnx onnxruntime",
    "quantization.spec": "paddle onnx onnxruntime",
}


@pytest.mark.parametrize("modules", LIGHT)
def test_what_takes_seconds_is_imported_when_it_is_needed(modules):
    code = f"import sys, segslim.{modules}; sys.exit(not set({LIGHT[modules].split()}).isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
