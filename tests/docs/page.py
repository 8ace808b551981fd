"""Does what a page of docs/ tells its reader to do, in a copy of the checkout, block by block.

```python        a script: run; a ```text block right after it is what it prints
```bash          commands: run, `uv run` by this Python, with a small data set and few iterations
```LANG PATH     a file: written there; added to its end where it exists
```diff PATH     an edit of a file: the lines with + come after, those with - go from, the lines around them
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.command import QUICK_PRUNING, ROOT, TINY

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SMALL = (
    "model=fast_scnn",
    *(word for word in TINY if not word.startswith(("dataset.source", "engine")) and "model." not in word),
)
_DRAWN = ("dataset.source.train_images=8", "dataset.source.val_images=2")


@dataclass(frozen=True)
class Block:
    language: str
    path: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def follow(page: Path, checkout: Path, store: Path) -> None:
    """Does all that the page says in `checkout`, whose .segslim is `store`; says which block did not do as written."""
    copy_checkout(checkout)
    (checkout / ".segslim").symlink_to(store)
    printed = ""
    for block in blocks(page):
        if block.language == "diff":
            _edit(checkout / str(block.path), block.text)
        elif block.path:
            file = checkout / block.path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(("\n\n" if stream.tell() else "") + block.text)
        elif block.language == "python":
            printed = _run([sys.executable, "-c", block.text], checkout)
        elif block.language == "bash":
            printed = "".join(_run(command, checkout) for command in _commands(block.text))
        elif block.language == "text":
            assert printed == block.text, f"{page.name} prints\n{printed}\nand not\n{block.text}"


def copy_checkout(folder: Path) -> None:
    for name in ("segslim", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)


def _edit(file: Path, diff: str) -> None:
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old, new = ("".join(text for mark, text in lines if mark in keep) for keep in (" -", " +"))
    source = file.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{file.name} has no single place for\n{old}"
    file.write_text(source.replace(old, new), encoding="utf-8")


def _commands(text: str) -> list[list[str]]:
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["uv", "run"]:
            words = words[2:]
            words = words if words[0] == "python" else ["python", *words]
        if words[:1] == ["python"]:
            words[0] = sys.executable
        if "run.py" in words and "--cfg" not in words:
            at = 3 if words[2:3] == ["-m"] else 2
            words[at:at] = _small(words)
        commands += [words] if words else []
    return commands


def _small(words: list[str]) -> list[str]:
    """Before what was typed, so that it has the last word."""
    drawn = not any(word.startswith("dataset=") for word in words)
    chosen = any(word.startswith("engine") for word in words)
    pruned = any(word.startswith("compress=prune") for word in words)
    return [
        *_SMALL,
        *(() if chosen else ("engine=onnxruntime",)),
        *(_DRAWN if drawn else ()),
        *((*QUICK_PRUNING, "compress.ratio=0.2") if pruned else ()),
    ]


def _run(command: list[str], checkout: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
