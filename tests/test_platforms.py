"""What can be known of Windows and macOS without them: the types hold, and the packages fit together."""

import shutil
import subprocess
import sys

import pytest

from tests.command import ROOT


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
