"""Pretrained weights that a network's config names, as PaddleSeg's `pretrained`: each as a file on this machine."""

import hashlib
import tarfile
import urllib.parse
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from segslim.errors import UserError
from segslim.files import download, flush, sha256_of
from segslim.screen import Screen

BLOCK = 1 << 18
MOST_BYTES = 1 << 32  # the largest of PaddleSeg's has some 1.3 GB


def local_weights(node: Any, store: str | Path, key: str = "model.network") -> Any:
    """A `_target_` node with a file for each `pretrained`, at any depth: an address is downloaded into `store`, unless
    it was. Raises UserError, with the key, for a path that does not exist and an address that does not answer.
    """
    if isinstance(node, Mapping):
        return {
            name: _file_of(value, Path(store), f"{key}.{name}")
            if name == "pretrained" and isinstance(value, str)
            else local_weights(value, store, f"{key}.{name}")
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [local_weights(value, store, f"{key}[{at}]") for at, value in enumerate(node)]
    return node


def digests(node: Any, store: str | Path) -> dict[str, str]:
    """{key: SHA-256} of the files of `local_weights`."""
    found: dict[str, str] = {}

    def visit(value: Any, key: str) -> None:
        if isinstance(value, list):
            for at, inner in enumerate(value):
                visit(inner, f"{key}[{at}]")
        for name, inner in value.items() if isinstance(value, Mapping) else ():
            if name == "pretrained" and isinstance(inner, str):
                try:
                    found[f"{key}.{name}"] = sha256_of(Path(inner))
                except OSError as error:
                    raise UserError(f"{key}.{name}={inner}: cannot be read ({error.strerror})") from None
            visit(inner, f"{key}.{name}")

    visit(local_weights(node, store), "model.network")
    return found


def _file_of(given: str, store: Path, key: str) -> str:
    if "://" in given:
        return str(_fetched(given, store / "pretrained", key))
    file = Path(given).expanduser()
    if not file.is_file():
        raise UserError(f"{key}={given}: there is no such file; give a .pdparams file, an address, or null")
    return str(file)


def _fetched(address: str, folder: Path, key: str) -> Path:
    """The weights at `address`, as FOLDER/NAME-ADDRESS-CONTENT.pdparams: whoever has no network can put them at
    FOLDER/NAME-ADDRESS.pdparams.
    """
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path))
    name = path.parent.name if path.stem == "model" else path.name.partition(".")[0]
    stem = f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    for file in sorted(folder.glob(f"{stem}*.pdparams")):
        return file
    partial = folder / f"{stem}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        columns = (TextColumn("downloading {task.description}", markup=False), BarColumn(32), DownloadColumn())
        with Progress(*columns, console=Screen(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=None)
            download(address, partial, MOST_BYTES, lambda done, total: bar.update(task, completed=done, total=total))
        weights = _unpacked(partial)
    except (OSError, ValueError, HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise UserError(
            f"{key}={address}: cannot be downloaded ({reason}): where there is a network, run it again, which goes on"
            f" from there, or put the weights at {folder / stem}.pdparams, or give their path by {key}=FILE"
        ) from None
    whole = folder / f"{stem}-{sha256_of(weights)[:12]}.pdparams"
    flush(weights)
    weights.replace(whole)
    partial.unlink(missing_ok=True)
    return whole


def _unpacked(file: Path) -> Path:
    """The file itself, or the one .pdparams that an archive holds."""
    if tarfile.is_tarfile(file):
        with tarfile.open(file) as archive:
            return _extracted({entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}, file)
    # a .pdparams of Paddle is a pickle, and no archive
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return _extracted({name: archive.open(name) for name in archive.namelist()}, file)
    return file


def _extracted(entries: Mapping[str, IO[bytes] | None], file: Path) -> Path:
    name = next((name for name in sorted(entries) if name.endswith(".pdparams")), None)
    stream = entries[name] if name else None
    if stream is None:
        raise ValueError("the archive holds no .pdparams file")
    target = file.with_suffix(".unpacked")
    with target.open("wb") as unpacked:
        size = 0
        while block := stream.read(BLOCK):
            size += len(block)
            if size > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MB")
            unpacked.write(block)
    return target
