"""Files as several rooms need them: opened only where they are files, plain data of bounded size, content by a digest,
written so that a power cut takes nothing.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import TypeAdapter

TIMEOUT_SECONDS = 15
MOST_BYTES = 1 << 28  # of a file of plain data: the manifest of a million files
MOST_YAML_BYTES = 1 << 20  # PyYAML takes seconds for a megabyte
MOST_VALUES, DEEPEST = 50_000, 50  # of a YAML file with its aliases written out


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a file to read. Raises OSError for anything else: a named pipe or a device may never end, or never begin.

    A path that holds a null byte is an OSError, too.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise OSError(0, str(error), os.fspath(path)) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(0, "it is no regular file", os.fspath(path))


def is_file(path: Path) -> bool:
    """Whether a file is there that can be read as one; False for every name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(address: str, file: Path, most: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Appends to what `file` holds of it already, where the server can go on from there.

    Args:
        address: of what is fetched.
        file: where it goes.
        most: bytes that it may have.
        progress: called with the bytes that are there and their number, where the server tells it.

    Raises OSError, ValueError or http.client.HTTPException.
    """
    import urllib.error  # here: most commands fetch nothing
    import urllib.request

    have = file.stat().st_size if file.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # all of it is there
            return
        raise
    with response:
        have = have if response.status == 206 else 0
        total = int(response.headers.get("Content-Length") or 0) + have
        with file.open("ab" if have else "wb") as stream:
            while block := response.read(1 << 18):
                have += stream.write(block)
                if have > most:  # the header may be absent, or wrong
                    raise ValueError(f"it is larger than {most >> 20} MB")
                if progress is not None and total:
                    progress(have, total)
    if have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def flush(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, reach the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # where folders cannot be opened
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(file: Path) -> Any:
    """The content of a .json, .yaml or .yml file, whoever wrote it, in little time and memory.

    Raises OSError, or ValueError in words for what is not such a file, or is larger or more nested than any of ours.
    """
    is_json = file.suffix == ".json"
    most = MOST_BYTES if is_json else MOST_YAML_BYTES
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size  # room for `most` takes longer to get than all else
        content = stream.read(min(size, most) + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    try:
        if is_json:
            return json.loads(content)
        plain = yaml.load(content.decode("utf-8-sig"), _Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, TypeError, OverflowError) as error:  # PyYAML's constructors raise what Python raises
        raise ValueError(" ".join(str(error).split())) from None
    _measure(plain, {})
    return plain


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which yet reads on for minutes, and copies what `<<: [*a, *a]` merges twice, and so on."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and len(node.value) > 100:
            raise ValueError("it holds a number of more than 100 digits")
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise ValueError("its aliases stand for too many values")


@cache  # each takes milliseconds, and a sweep asks for the same in each of its jobs
def reader(kind: Any) -> TypeAdapter[Any]:
    """What checks plain data against a type, and makes a value of that type of it."""
    return TypeAdapter(kind)


def _measure(value: Any, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """How many values it holds, and how deep, with each alias written out as whoever copies it will: a kilobyte may
    stand for 2^40.
    """
    if id(value) in known:
        return known[id(value)]
    inner = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    parts = (
        [_measure(part, known, depth + 1) for part in (inner if isinstance(inner, (list, tuple, set)) else ())]
        if depth <= DEEPEST
        else [(0, DEEPEST)]
    )
    count, height = 1 + sum(count for count, _ in parts), 1 + max((height for _, height in parts), default=0)
    if height > DEEPEST:
        raise ValueError("it is nested too deeply")
    if count > MOST_VALUES:
        raise ValueError("its aliases stand for too many values")
    known[id(value)] = count, height
    return count, height
