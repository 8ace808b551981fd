"""A page to try a deployment on: a photo is dropped there, or a webcam looked through, and the networks answer in turn.

It is Python's own HTTP server: nothing is to be installed, and the page asks nobody else for anything.
"""

import base64
import errno
import io
import json
import math
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from segslim.colours import background_of, blend
from segslim.data.images import IMAGE_SUFFIXES, as_rgb
from segslim.deployment.deployment import precision_in_words
from segslim.errors import UserError, deferred, refusal
from segslim.predict.predictor import Predictor
from segslim.predict.results import JPEG_QUALITY, Results
from segslim.streams import printable_line

MOST_BYTES = 50_000_000  # of an upload
MOST_PIXELS = 25_000_000  # of it: drawing an overlay takes 37 bytes a pixel
RUNS = 3  # of each network; its time is the quickest: other processes only ever add to it
PAGE = Path(__file__).with_name("serve.html")
STYLE = Path(__file__).parents[1] / "reporting" / "templates" / "style.css"  # that of the reports
FILES = {"/": (PAGE, "text/html; charset=utf-8"), "/style.css": (STYLE, "text/css; charset=utf-8")}
POLICY = "default-src 'self' 'unsafe-inline'; img-src data:"  # to which browsers hold the page


class Server(socketserver.ThreadingTCPServer):
    """Listens at once, so that a taken port is known before `networks` are opened. Raises UserError where it cannot."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # where it would let two listen on one port
    timeout = 0.2  # seconds within which a signal is heard

    def __init__(self, host: str, port: int) -> None:
        self.networks: dict[str, Predictor] = {}
        self.lock = threading.Lock()  # an engine takes all cores: one image at a time
        try:
            super().__init__((host, port), _Handler)
        except OverflowError:
            raise UserError(f"--port {port}: should be at most 65535") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"--port {port} is taken: give another one, or 0 for any that is free") from None
            remedy = "give a --host that this machine has, as 127.0.0.1 or 0.0.0.0, and a --port from 1024"
            raise UserError(f"{host}:{port} cannot be listened on ({error.strerror}): {remedy}") from None

    def run(self) -> int:
        """Answers until a signal comes, whose number it gives. No engine is left in the midst of an image."""
        with deferred(then_end=False) as stopped:
            while not stopped():
                self.handle_request()
            with self.lock:
                return stopped()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # who asked has gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 60  # seconds of silence that end a connection

    def do_GET(self) -> None:
        file, kind = FILES.get(self.path, (None, "text/plain"))
        self.answer(200 if file else 404, kind, file.read_bytes() if file else b"there is no such page")

    def do_POST(self) -> None:
        """The body is an image file, `?name=` what it is called: the suffix tells how it is read."""
        name = parse_qs(urlsplit(self.path).query).get("name", ["the upload"])[0]
        given = self.headers.get("Content-Length", "")
        left = length = int(given[:18]) if given.isdecimal() else 0  # of more digits it is as much too large
        try:
            if length > MOST_BYTES:
                while part := self.rfile.read(min(left, 1 << 20)):  # without it, no browser reads the answer
                    left -= len(part)
                raise UserError(f"{name} has over {MOST_BYTES // 1_000_000} MB: save it smaller")
            upload = self.rfile.read(length)
            with self.server.lock:
                status, content = 200, compare(self.server.networks, upload, name)
        except (UserError, OSError, MemoryError) as error:
            message = str(error) if isinstance(error, UserError) else refusal(error)
            if message is None:
                raise
            status, content = (413 if length > MOST_BYTES else 400), {"error": printable_line(message)}
        self.answer(status, "application/json", json.dumps(content).encode())

    def answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the page does."""


def compare(networks: Mapping[str, Predictor], upload: bytes, name: str) -> dict[str, Any]:
    """What the page shows of an image file: of each network the milliseconds of its quickest run, overlay and mask; the
    classes that are there; the share of pixels in which the networks differ, where there are two.

    Raises UserError for what is no image, or too large, or cannot be taken by a network.
    """
    first, *_ = networks.values()
    suffix = Path(name).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "upload" + (suffix if suffix in IMAGE_SUFFIXES else ""))
        file.write_bytes(upload)
        try:
            image = first.read(file)
        except UserError as error:
            raise UserError(str(error).replace(str(file), name)) from None
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise UserError(f"the image {name} has over {MOST_PIXELS // 1_000_000} million pixels: save it smaller")
    prepared = {role: predictor.prepare(image) for role, predictor in networks.items()}
    masks, times = {}, dict.fromkeys(networks, math.inf)
    for _ in range(RUNS):  # in turn, so that what slows the machine down slows both
        for role, predictor in networks.items():
            before = time.perf_counter()
            masks[role] = predictor.run(prepared[role])
            times[role] = min(times[role], 1000 * (time.perf_counter() - before))
    results = Results(Path(), (), first.deployment.palette, first.deployment.classes)
    background = background_of(results.classes)
    answers = []
    for role, predictor in networks.items():
        opened = predictor.session.describe()
        precision = precision_in_words(predictor.deployment.precision, opened["precision"])
        about = f"{opened['name']} {opened['version']}, {precision}, threads: {opened['threads']}"
        overlay = Image.fromarray(blend(as_rgb(image), masks[role], results.colours, background=background))
        pictures = {"overlay": _address(overlay, "jpeg"), "mask": _address(results.mask(masks[role]), "png")}
        answers.append({"name": role, "about": about, "ms": times[role], **pictures})
    there = np.unique(list(masks.values())).tolist()
    named = [
        (results.name_of(at), results.colours[at]) for at in there if at != background and at < len(results.colours)
    ]
    differ = [float((mask != masks["compressed"]).mean()) for role, mask in masks.items() if role != "compressed"]
    return {"networks": answers, "legend": named, "differ": differ}


def _address(picture: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, quality=JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
