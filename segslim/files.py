"""Files as several rooms need them: their content known by a digest, and written so that a power cut takes nothing."""

import hashlib
import os
from pathlib import Path


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
