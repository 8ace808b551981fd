"""What a data set is to the rest: images with their labels, where there are some, and a digest of their content."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from segslim.data.images import PLAIN, Reading, file_error, read_image, read_label
from segslim.errors import UserError
from segslim.files import is_file, read_plain, sha256_of

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""

SPLITS = ("train", "val")

DIGEST_VERSION = 1
SETTLED_SECONDS = 2.0
MISSING = "missing"

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Pair:
    """One image, its label, and the line (from 1) of the list that names them.

    Without a list, `line` is 0 and `list_file` is the folder of the images. `label_offset` is added to the numbers in
    the label file to give class ids; ids below 0 are ignored (images.py). An image without labels has None for one.
    `reading` is the data set's.
    """

    image: Path
    label: Path | None
    line: int
    list_file: Path
    label_offset: int = 0
    reading: Reading = PLAIN

    @property
    def where(self) -> str:
        """Where a user finds the pair, as compilers write it: `train_list.txt:12`; without a list, the image."""
        return f"{self.list_file}:{self.line}" if self.line else str(self.image)

    @property
    def files(self) -> dict[str, Path]:
        """{"image", "label"}, the latter where there is one."""
        return {"image": self.image} if self.label is None else {"image": self.image, "label": self.label}

    def read_image(self) -> NDArray[Any]:
        """H,W,C in 0..255 of an image that has been checked. Raises `UserError`, naming the file."""
        return read_image(self.image, self.where, self.reading, inspected=True)

    def read_label(self) -> NDArray[Any]:
        """Class ids H,W, where there is a label. Raises `UserError`, naming the file."""
        assert self.label is not None
        return read_label(self.label, self.label_offset, self.where, self.reading)

    def error(self, kind: str, fault: str) -> UserError:
        """The error `train_list.txt:12: the image a.jpg is ...`; `kind` is "image" or "label"."""
        return file_error(kind, self.files[kind], fault, self.where)


class Source(Protocol):
    """A data set. Its methods raise `UserError` for faults that a user can correct.

    Unless `strict`, a missing image or label is no error: the caller leaves its pair out (checks.py).
    """

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Hex digest of the content: it changes when an image or a label changes, not when the data set moves.

        `cache` is a file with the digests of unchanged files, so that a second call reads none of them.
        """
        ...

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Writes to `folder` what `pairs` needs to find there."""
        ...

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of the split "train" or "val", after `prepare(folder)`."""
        ...


def digest_of_pairs(
    splits: Mapping[str, Iterable[Pair]],
    cache: Path | None = None,
    strict: bool = True,
    now: Callable[[], float] = time.time,
) -> str:
    """Hex digest of every pair's bytes, split by split and in order; names and folders do not count.

    Args:
        splits: The pairs of each split.
        cache: A JSON file of digests by path and `stat`. Files that were written in the last `SETTLED_SECONDS` are not
            added to it.
        strict: Whether a missing file is an error.
        now: Seconds since 1970.

    Raises:
        UserError: For a file that is missing, if `strict`, or cannot be read, with its line in the list.
    """
    listed = [(split, pair) for split, pairs in splits.items() for pair in pairs]
    present = [pair for _, pair in listed if strict or all(map(is_file, pair.files.values()))]
    digests = _digests(present, cache, now())
    content = [(split, *(digests.get(file, MISSING) for file in pair.files.values())) for split, pair in listed]
    return hashlib.sha256(json.dumps([DIGEST_VERSION, content]).encode()).hexdigest()


def _digests(pairs: Iterable[Pair], cache_file: Path | None, now: float) -> dict[Path, str]:
    stamps, listed = {}, {}
    for pair in pairs:
        for kind, path in pair.files.items():
            listed[path] = pair, kind
            try:
                stat = path.stat()
            except (OSError, ValueError) as error:  # ValueError: a null byte
                raise pair.error(kind, f"cannot be read: {getattr(error, 'strerror', error)}") from None
            # The change time also shows a change that kept size and modification time (`cp -p`).
            stamps[path] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    cache = _read_cache(cache_file)
    cached = {path: cache[str(path.absolute())] for path in stamps if str(path.absolute()) in cache}
    digests = {path: digest for path, (stamp, digest) in cached.items() if stamp == stamps[path]}
    unknown = [path for path in stamps if path not in digests]

    def digest(path: Path) -> str:
        try:
            return sha256_of(path)
        except OSError as error:
            pair, kind = listed[path]
            raise pair.error(kind, f"cannot be read: {error.strerror}; check it, and its permissions") from None

    with ThreadPoolExecutor() as pool:
        computed = dict(zip(unknown, pool.map(digest, unknown), strict=True))
    # Within one tick of the file system's clock a file may change and keep its stamp: such a file is not cached.
    settled = [path for path in unknown if now - max(stamps[path][1:3]) / 1e9 > SETTLED_SECONDS]
    if cache_file is not None and settled:
        cache.update({str(path.absolute()): (stamps[path], computed[path]) for path in settled})
        _write_cache(cache_file, cache)
    return digests | computed


def _read_cache(cache_file: Path | None) -> dict[str, tuple[Stamp, str]]:
    if cache_file is None or not cache_file.exists():
        return {}
    try:
        return {path: (tuple(stamp), digest) for path, (stamp, digest) in read_plain(cache_file).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        log.warning("the cache of file hashes %s cannot be read: it is rebuilt", cache_file)
        return {}


def _write_cache(cache_file: Path, cache: Mapping[str, tuple[Stamp, str]]) -> None:
    """Replaces the cache in one step, so that concurrent runs can share it; the last writer wins."""
    unfinished = None
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cache_file.parent, prefix=cache_file.name)
        unfinished = Path(name)
        with os.fdopen(descriptor, "w") as file:
            json.dump(cache, file)
        unfinished.replace(cache_file)
    except OSError as error:  # a full disk, for example: the next run computes the hashes again
        log.warning("the cache of file hashes %s cannot be written (%s)", cache_file, error.strerror)
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


SUMMARY, SKIPPED, READING = "summary.json", "skipped.json", "reading.json"


@dataclass(frozen=True)
class Dataset:
    """A folder with the files of a data set that was drawn or downloaded.

    summary: {split: {pairs, sizes, pixels of each class, warnings}}; skipped: {split: {position in the list: why}} of
    the pairs that are left out; reading: how the others are read.
    """

    folder: Path
    summary: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reading: Reading = PLAIN

    kind: ClassVar[str] = "dataset"

    @staticmethod
    def load(folder: Path) -> "Dataset":
        summary, skipped, reading = (read_plain(folder / name) for name in (SUMMARY, SKIPPED, READING))
        reading["label_map"] = {int(number): class_id for number, class_id in reading["label_map"].items()}
        return Dataset(folder, summary, skipped, Reading(**reading))

    def save(self, folder: Path) -> None:
        if folder != self.folder:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        for name, content in ((SUMMARY, self.summary), (SKIPPED, self.skipped), (READING, asdict(self.reading))):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def usable(self, pairs: Sequence[Pair], split: str) -> list[Pair]:
        """Those of the listed pairs that passed the check."""
        skipped = self.skipped[split]
        return [replace(pair, reading=self.reading) for at, pair in enumerate(pairs) if str(at) not in skipped]
