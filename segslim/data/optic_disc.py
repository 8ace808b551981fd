"""PaddleSeg's optic disc data: photographs of the back of the eye, two classes; downloaded if there is no copy."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from segslim.data.layouts import FileList
from segslim.data.source import Pair, Progress
from segslim.errors import UserError
from segslim.files import download

TRAIN_LIST = "train_list.txt"
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
            with tempfile.TemporaryDirectory() as temporary:
                file = Path(temporary, "archive.zip")
                download(self.url, file, MOST_BYTES, progress)
                with ZipFile(file) as archive:
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
