"""Data sets in PaddleSeg's format: text files of one `image label` pair a line, with paths relative to a root."""

from dataclasses import dataclass
from pathlib import Path

from segslim.data.files import lines_of
from segslim.data.source import Pair
from segslim.data.stored import Stored
from segslim.errors import UserError


@dataclass(frozen=True)
class FileList(Stored):
    """Two list files under a root folder.

    A relative list file is looked for under the root; a relative path in a list is relative to the root too. The
    separator " " stands for any white space; paths that contain spaces need a tab or a comma between them.
    """

    root: str | Path
    train_list: str | Path
    val_list: str | Path
    separator: str = " "

    def listed(self, split: str, strict: bool) -> list[Pair]:
        root = self._root()
        list_file = root / {"train": self.train_list, "val": self.val_list}[split]
        if not list_file.is_file():
            key = f"dataset.{split}_list"
            raise UserError(f"the list file {list_file} does not exist: set {key} to a file under {root}")
        pairs = []
        for number, line in enumerate(lines_of(list_file), start=1):
            if line.strip():
                image, label = self._columns(line, f"{list_file}:{number}")
                pairs.append(Pair(root / image, root / label, number, list_file))
        if not pairs:
            raise UserError(f"the list file {list_file} is empty: it needs one 'image{self.separator}label' a line")
        return pairs

    def _root(self) -> Path:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError(f"the data set's folder {root} does not exist: set dataset.root to the folder of the data")
        return root

    def _columns(self, line: str, where: str) -> tuple[str, str]:
        fields = line.split() if self.separator == " " else [field.strip() for field in line.split(self.separator)]
        if len(fields) != 2 or not all(fields):
            raise UserError(
                f"{where} has {len(fields)} columns, not 'image{self.separator}label', when split at "
                f"{self.separator!r}: mend the line or set dataset.separator (paths with spaces need '\\t' or ',')"
            )
        return fields[0], fields[1]
