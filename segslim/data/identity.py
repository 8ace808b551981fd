"""Content hashes of data sets, with a cache keyed by what `stat` says: an unchanged data set is never read twice."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segslim.data.source import Pair
from segslim.errors import UserError
from segslim.files import sha256_of

log = logging.getLogger(__name__)

VERSION = 1
SETTLED_SECONDS = 2.0
MISSING = "missing"

Stamp = tuple[int, int, int, int]
Cache = dict[str, tuple[Stamp, str]]


def digest_of_pairs(
    splits: Mapping[str, Iterable[Pair]],
    cache: Path | None = None,
    strict: bool = True,
    now: Callable[[], float] = time.time,
) -> str:
    """Hex digest of every pair's bytes, split by split and in order.

    Files written within `SETTLED_SECONDS` before `now` (seconds since 1970) are not put into the cache. Raises
    `UserError` with the list's line for a file that is missing, if `strict`, or cannot be read.
    """
    listed = [(split, pair) for split, pairs in splits.items() for pair in pairs]
    there = [pair for _, pair in listed if strict or (pair.image.is_file() and pair.label.is_file())]
    digests = _digests(there, cache, now())
    content = [(split, digests.get(pair.image, MISSING), digests.get(pair.label, MISSING)) for split, pair in listed]
    return hashlib.sha256(json.dumps([VERSION, content]).encode()).hexdigest()


def _stamp(pair: Pair, path: Path) -> Stamp:
    """What changes when a file's content does. ctime also tells of a change that kept size and mtime (`cp -p`)."""
    try:
        stat = path.stat()
    except OSError as error:
        kind = "image" if path == pair.image else "label"
        raise UserError(
            f"{pair.where} names the {kind} {path}: {error.strerror}; mend the line or dataset.root"
        ) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _digests(pairs: Iterable[Pair], cache_file: Path | None, now: float) -> dict[Path, str]:
    stamps = {path: _stamp(pair, path) for pair in pairs for path in (pair.image, pair.label)}
    cache = _read_cache(cache_file)
    known = {path: cache[str(path.absolute())] for path in stamps if str(path.absolute()) in cache}
    found = {path: digest for path, (stamp, digest) in known.items() if stamp == stamps[path]}
    unknown = [path for path in stamps if path not in found]
    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(unknown, pool.map(_readable_digest, unknown), strict=True))
    settled = [path for path in unknown if _is_settled(stamps[path], now)]
    if cache_file is not None and settled:
        cache.update({str(path.absolute()): (stamps[path], fresh[path]) for path in settled})
        _write_cache(cache_file, cache)
    return found | fresh


def _readable_digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check its permissions") from None


def _is_settled(stamp: Stamp, now: float) -> bool:
    """Whether every later change must give another stamp: not so within one tick of the file system's clock."""
    return now - max(stamp[1], stamp[2]) / 1e9 > SETTLED_SECONDS


def _read_cache(cache_file: Path | None) -> Cache:
    if cache_file is None or not cache_file.exists():
        return {}
    try:
        return {path: (tuple(stamp), digest) for path, (stamp, digest) in json.loads(cache_file.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        log.warning("the cache of file hashes %s cannot be read and is made anew", cache_file)
        return {}


def _write_cache(cache_file: Path, cache: Cache) -> None:
    """Replaces the cache in one step, so that runs at the same time may share it; the last writer wins."""
    unfinished = None
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cache_file.parent, prefix=cache_file.name)
        unfinished = Path(name)
        with os.fdopen(descriptor, "w") as file:
            json.dump(cache, file)
        unfinished.replace(cache_file)
    except OSError as error:  # a full disk, say: the next run hashes once more
        log.warning("the cache of file hashes %s cannot be written (%s)", cache_file, error.strerror)
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
