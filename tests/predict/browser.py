"""Headless Chromium, told what to do by its DevTools protocol through a pipe."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")


class Browser:
    """One page in a profile of its own, with a webcam that draws a moving picture."""

    def __init__(self, profile: Path) -> None:
        commands, answers = os.pipe(), os.pipe()
        reads, self._commands, self._answers, writes = (
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (commands[0], commands[1], answers[0], answers[1])
        )
        for end in (*commands, *answers):
            os.close(end)
        options = [*(f"--disable-{name}" for name in _QUIET), f"--user-data-dir={profile}"]
        options += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        self._process = subprocess.Popen(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--no-first-run",
                "--remote-debugging-pipe",
                *options,
                "about:blank",
            ],
            preexec_fn=lambda: (os.dup2(reads, 3), os.dup2(writes, 4)),  # where it looks for them
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._pending, self._number, self._session = b"", 0, {}
        (target,) = [one for one in self.tell("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.tell("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.requests: list[str] = []
        self.tell("Network.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)  # which ends it
        self._process.wait(30)
        os.close(self._answers)

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of the protocol answers."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._pending:
                part = os.read(self._answers, 1 << 20)
                assert part, "Chromium has ended"
                self._pending += part
            text, _, self._pending = self._pending.partition(b"\0")
            message = json.loads(text)
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression: str) -> Any:
        return self.tell("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> Any:
        """The first value of a JavaScript expression that is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"{expression} has not come: {self.value('document.body.innerText')}"
            time.sleep(0.05)
        return found

    def choose(self, selector: str, file: Path) -> None:
        """Has a user's choice of a file reach an <input type=file>."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", captureBeyondViewport=True)["data"]))
