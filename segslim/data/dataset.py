"""What the stage `data` has made and checked, as later stages use it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from segslim.data.source import Pair

SUMMARY, SKIPPED = "summary.json", "skipped.json"


@dataclass(frozen=True)
class Dataset:
    """A folder with the files of a data set that was drawn or downloaded.

    summary: {split: {pairs, sizes, pixels of each class}}; skipped: {split: {position in the list: why}} of the pairs
    that are left out.
    """

    folder: Path
    summary: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    kind: ClassVar[str] = "dataset"

    @staticmethod
    def load(folder: Path) -> "Dataset":
        summary, skipped = (json.loads((folder / name).read_bytes()) for name in (SUMMARY, SKIPPED))
        return Dataset(folder, summary, skipped)

    def save(self, folder: Path) -> None:
        if folder != self.folder:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        for name, content in ((SUMMARY, self.summary), (SKIPPED, self.skipped)):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def usable(self, pairs: Sequence[Pair], split: str) -> list[Pair]:
        """Those of the listed pairs that passed the check."""
        skipped = self.skipped[split]
        return [pair for at, pair in enumerate(pairs) if str(at) not in skipped]
