"""`python -m segslim predict RUN --serve`: the page, asked as a browser asks, and by a browser."""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
from contextlib import contextmanager

import numpy as np
import pytest
import yaml
from PIL import Image

from segslim.commands import main
from segslim.predict import open_predictor, read_image
from segslim.predict.serve import MOST_BYTES
from tests.command import ROOT
from tests.predict.browser import CHROMIUM, Browser
from tests.predict.exports import CLASSES, COLOURS


@contextmanager
def serving(run, without_paddle):
    """The address of a server, which a Ctrl-C then ends in one line."""
    path = os.pathsep.join([str(without_paddle), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "segslim", "predict", str(run), "--serve", "--port", "0"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().partition(": drop")[0].removeprefix("http://")
        assert address.startswith("127.0.0.1:"), process.communicate()
        yield address
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "stopped by SIGINT\n")
        assert process.returncode == 128 + signal.SIGINT
    finally:
        process.kill()


@pytest.fixture(scope="module")
def run(export_folder, tmp_path_factory):
    """What is left of a run, whose compressed network is the baseline with another mean taken off its images."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(export_folder, folder / "compressed")
    file = folder / "compressed" / "deploy.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["Deploy"]["transforms"][1]["mean"] = [0.1, 0.9, 0.2]
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    network = {"engine": "onnxruntime", "session": {"precision": "float32"}, "deployment": str(export_folder)}
    compressed = {**network, "engine": "openvino", "deployment": str(folder / "compressed")}
    (folder / "report.json").write_text(json.dumps({"baseline": network, "compressed": compressed}))
    return folder


@pytest.fixture(scope="module")
def address(run, no_paddle):
    with serving(run, no_paddle) as address:
        yield address


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "street 1.png"
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(noise).resize((180, 130), Image.Resampling.BICUBIC).save(file)
    return file


def ask(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body)
    reply = connection.getresponse()
    return reply.status, reply.read(), reply.headers


def upload(address, name, content):
    status, answer, _ = ask(address, "POST", "/predict?name=" + urllib.parse.quote(name), content)
    return status, json.loads(answer)


def picture(address):
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_both_networks_answer_with_the_masks_of_predict(address, run, export_folder, photo):
    status, answer = upload(address, photo.name, photo.read_bytes())
    assert status == 200
    engines = {"baseline": (export_folder, "onnxruntime"), "compressed": (run / "compressed", "openvino")}
    expected = [open_predictor(*opened).predict(read_image(photo)) for opened in engines.values()]
    assert [one["name"] for one in answer["networks"]] == list(engines)
    for one, ids in zip(answer["networks"], expected, strict=True):
        assert np.array_equal(picture(one["mask"]), ids)
        assert picture(one["overlay"]).shape == (130, 180, 3)
        assert engines[one["name"]][1] in one["about"] and "float32" in one["about"] and one["ms"] > 0
    assert answer["differ"] == [(expected[0] != expected[1]).mean()] != [0]
    there = sorted(set(np.unique(expected).tolist()) - {0})
    assert answer["legend"] == [[CLASSES[at], list(COLOURS[at])] for at in there]


def test_an_upload_that_is_no_image_or_too_large_is_one_line_that_names_it(address):
    many = io.BytesIO()
    Image.new("1", (5001, 5000)).save(many, "png")
    uploads = [
        ("notes\n.txt", b"no image", 400, "no known image format"),
        ("nothing.png", b"", 400, "no known image format"),
        ("map.png", many.getvalue(), 400, "over 25 million pixels"),
        ("film.jpg", bytes(MOST_BYTES + 1), 413, "over 50 MB"),
    ]
    for name, content, expected, words in uploads:
        status, answer = upload(address, name, content)
        assert status == expected and name.replace("\n", "\\n") in answer["error"] and words in answer["error"]
        assert answer["error"].isprintable() and "/tmp" not in answer["error"]
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 60) as claim:  # more digits than Python makes a number of
        claim.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: %s\r\n\r\n" % (b"9" * 5000))
        claim.shutdown(socket.SHUT_WR)
        assert b" 413 " in claim.recv(100)


def test_there_is_the_page_with_its_style_and_no_other_file(address):
    status, page, headers = ask(address, "GET", "/")
    assert status == 200 and b"webcam" in page and "default-src 'self'" in headers["Content-Security-Policy"]
    assert ask(address, "GET", "/style.css")[0] == 200
    assert [ask(address, "GET", path)[0] for path in ("/serve.py", "/../serve.py", "//etc/passwd")] == [404] * 3


def test_an_export_folder_answers_alone(export_folder, no_paddle, photo):
    with serving(export_folder, no_paddle) as address:
        status, answer = upload(address, photo.name, photo.read_bytes())
    assert status == 200 and [one["name"] for one in answer["networks"]] == ["compressed"] and not answer["differ"]


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("--serve --port TAKEN", "--port"),
        ("--serve --port 70000", "--port 70000"),
        ("--serve --port 0 --host 192.0.2.1", "--host"),
        ("street.png --serve", "SOURCE"),
        ("--serve --write masks", "--write"),
        ("street.png --port 80", "--serve"),
        ("", "SOURCE"),
    ],
)
def test_what_cannot_be_served_is_one_line(run, address, capsys, typed, named):
    typed = typed.replace("TAKEN", address.rpartition(":")[2])
    assert main(["predict", str(run), *typed.split()]) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page was not tried in a browser")
def test_chromium_shows_a_photo_a_webcam_and_what_is_wrong_and_asks_nobody_else(address, photo, tmp_path):
    with Browser(tmp_path) as browser:
        browser.tell("Page.navigate", url=f"http://{address}/")
        browser.until("document.readyState === 'complete' && !!document.querySelector('#file')")
        browser.choose("#file", photo)
        width = "document.querySelector('#networks img')?.naturalWidth"
        assert browser.until(width) == 180
        shown = browser.value("document.body.innerText")
        assert "baseline" in shown and "compressed" in shown and "disc" in shown and "They differ in" in shown

        browser.value(
            "const d = new DataTransfer(); d.items.add(new File(['no image'], 'notes.txt'));"
            "dispatchEvent(new DragEvent('drop', { dataTransfer: d }))"
        )
        assert "notes.txt" in browser.until("document.querySelector('#said.bad')?.textContent")
        assert browser.value("document.querySelector('#shown').checkVisibility()") is False

        browser.value("document.querySelector('#camera').click()")
        assert browser.until(f"document.querySelector('#shown').checkVisibility() && {width}") != 180
        browser.value("document.querySelector('#camera').click()")
        allowed = (f"http://{address}/", "data:", "about:")
        assert browser.requests and not [url for url in browser.requests if not url.startswith(allowed)]
