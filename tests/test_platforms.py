"""What can be known of Windows and macOS without them: the types hold, and the packages fit together."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segslim.errors import refusal
from segslim.files import sha256_of
from tests.command import ROOT, TINY, last_report, segslim


@pytest.mark.long
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_types_hold(platform, tmp_path):
    command = [sys.executable, "-m", "mypy", "--platform", platform, "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("group", ["paddle3", "paddle2"])
@pytest.mark.parametrize("platform", ["windows", "macos", "linux"])
def test_the_packages_fit_together_and_ray_is_left_out_where_it_does_not(platform, group, tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("no uv here: packages were not resolved for other systems")
    groups = [part for name in (group, "dev") for part in ("--group", f"pyproject.toml:{name}")]
    options = [
        "--quiet",
        "--no-annotate",
        "--python-platform",
        platform,
        "--python-version",
        "3.11",
        "-o",
        tmp_path / "r",
    ]
    command = ["uv", "pip", "compile", *groups, *map(str, options), "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in (tmp_path / "r").read_text().splitlines()}
    assert {"paddlepaddle", "onnxruntime", "openvino", "mnn", "ncnn", "pnnx"} <= names and "torch" not in names
    assert ("ray" in names) == (platform != "windows")


@pytest.mark.parametrize(
    ("number", "name", "remedy"),
    [
        (errno.ENOENT, "C:\\" + 260 * "x", "store=FOLDER"),
        (errno.EINVAL, "outputs\\lr:0.1", ':"|?*'),
        (errno.ENOENT, "C:\\x", ""),
    ],
)
def test_a_name_that_windows_does_not_take_is_one_line_with_the_remedy(number, name, remedy, monkeypatch):
    error = OSError(number, os.strerror(number), name)
    assert refusal(error) is None
    monkeypatch.setattr(sys, "platform", "win32")
    said = refusal(error)
    assert said is None if not remedy else name in said and remedy in said and "\n" not in said


@pytest.mark.long
def test_a_run_whose_workers_are_spawned_comes_to_the_same(tmp_path, monkeypatch):
    """Windows and macOS have no fork that could be used: whatever workers are given is pickled."""
    deployed = []
    for method in ("fork", "spawn"):
        folder = tmp_path / method
        folder.mkdir()
        text = f"from segslim.data import loading\nassert loading.START_METHOD\nloading.START_METHOD = {method!r}\n"
        (folder / "sitecustomize.py").write_text(text)  # which every process reads at its start
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
        answer = segslim("compress=none", *TINY, "num_workers=2", cwd=folder)
        assert answer.returncode == 0, answer.stderr
        network = last_report(folder)["compressed"]
        deployed.append((network["class_iou"], sha256_of(Path(network["deployment"], "model.onnx"))))
    assert deployed[0] == deployed[1]
