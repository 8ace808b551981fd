"""PaddleSeg's optic disc data: photographs of the back of the eye, two classes; downloaded if there is no copy."""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from segslim.data.layouts import FileList
from segslim.data.source import Pair, Progress
from segslim.errors import UserError

TRAIN_LIST = "train_list.txt"
TIMEOUT_SECONDS = 15
BLOCK = 1 << 18
MOST_BYTES = 1 << 30  # PaddleSeg's archive has 2 % of that


@dataclass(frozen=True)
class OpticDisc:
    """A `FileList`, or, where `root` is empty, what the archive of `url` holds."""

    root: str | Path | None = None
    train_list: str | Path = TRAIN_LIST
    val_list: str | Path = "val_list.txt"
    separator: str = " "
    url: str = "https://paddleseg.bj.bcebos.com/dataset/optic_disc_seg.zip"

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the images' and labels' bytes, or of the address if they are still to be downloaded."""
        if not self.root:
            return hashlib.sha256(self.url.encode()).hexdigest()
        return self._file_list(self.root).identity(cache, strict)

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Downloads and unpacks the archive into `folder`, unless a root was given."""
        if self.root:
            return
        from http.client import HTTPException  # here: a plan only needs the identity
        from zipfile import BadZipFile, ZipFile

        try:
            archive = ZipFile(_download(self.url, progress))
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MB")
            archive.extractall(folder)
        except (OSError, ValueError, HTTPException, BadZipFile) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise UserError(
                f"cannot download {self.url} ({reason}): fetch it where there is a network, unpack it, and give "
                f"dataset.root=FOLDER, the one that holds {TRAIN_LIST}"
            ) from None

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs that the lists name, of `root` or of what `prepare` unpacked into `folder`."""
        root = self.root or next((path.parent for path in sorted(folder.rglob(TRAIN_LIST))), None)
        if root is None:
            raise UserError(f"{self.url} holds no {TRAIN_LIST}: set dataset.source.url to PaddleSeg's archive")
        return self._file_list(root).pairs(folder, split, strict)

    def _file_list(self, root: str | Path) -> FileList:
        return FileList(root, self.train_list, self.val_list, self.separator)


def _download(url: str, progress: Progress | None) -> BytesIO:
    import urllib.request

    content = BytesIO()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(BLOCK):
            content.write(block)
            if content.tell() > MOST_BYTES:  # the header may be absent, or wrong
                raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
            if progress is not None and total:
                progress(content.tell(), total)
    if content.tell() < total:
        raise OSError(f"the connection ended after {content.tell()} of {total} bytes")
    return content
