"""The C++ example is built as its head says, and its masks are those of `segslim.predict`."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segslim.predict import open_predictor
from tests.command import ROOT
from tests.predict.exports import SIZE, write_export
from tests.predict.test_photo import photograph

SOURCE = ROOT / "examples" / "cpp"
MISSING = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]


def test_the_example_is_short():
    assert len((SOURCE / "predict.cpp").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if MISSING:
        pytest.skip(f"no {' and no '.join(MISSING)} here: the C++ example was not built")
    build = tmp_path_factory.mktemp("build")
    (folder,) = re.findall(r"python -c '(.*?)'", (SOURCE / "predict.cpp").read_text(encoding="utf-8"))
    found = subprocess.run([sys.executable, "-c", folder], check=True, capture_output=True, text=True).stdout.strip()
    for command in (["-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={found}"], ["--build", build]):
        done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "predict"


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export"), size=SIZE, photo="rgb", formats=["onnx"])


@pytest.mark.slow
def test_its_masks_are_those_of_predict(program, folder, tmp_path):
    sizes, named, classes = [(640, 480), (77, 130), SIZE], [], set()
    for at, size in enumerate(sizes):
        Image.fromarray(photograph(*size)).save(tmp_path / f"{at}.ppm")
        named += [tmp_path / f"{at}.ppm", tmp_path / f"{at}.pgm"]
    done = run(program, folder, *named)
    assert done.returncode == 0 and done.stdout.count(" ms\n") == len(sizes), done.stderr
    predictor = open_predictor(folder, "openvino")
    for at, size in enumerate(sizes):
        with Image.open(tmp_path / f"{at}.pgm") as mask:
            given = np.array(mask)
        expected = predictor.predict(photograph(*size))
        classes |= set(np.unique(given))
        assert given.shape == expected.shape and (given == expected).mean() > 0.9999, size
    assert len(classes) > 1


@pytest.mark.slow
def test_a_mistake_is_one_line(program, folder, tmp_path):
    (tmp_path / "short.ppm").write_bytes(b"P6\n# cut short\n9 9\n255\n123")
    (tmp_path / "none.ppm").write_bytes(b"no photo")
    mistakes = {
        (tmp_path, "short.ppm"): "export.preprocess=true",
        (folder, "short.ppm"): "ends before its last pixel",
        (folder, "none.ppm"): "no binary PPM",
    }
    for (where, photo), words in mistakes.items():
        done = run(program, where, tmp_path / photo, tmp_path / "mask.pgm")
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert run(program, folder).returncode == 2
