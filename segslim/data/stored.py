"""What all data sets have in common whose files are on the disk already."""

from abc import abstractmethod
from pathlib import Path

from segslim.data.files import existing
from segslim.data.identity import digest_of_pairs
from segslim.data.source import SPLITS, Pair, Progress, Source


class Stored(Source):
    """Known by its lists: nothing is made, and the content of the listed files is its identity."""

    @abstractmethod
    def listed(self, split: str, strict: bool) -> list[Pair]:
        """The pairs of a split in their order, whether or not their files exist. Raises `UserError` for the rest."""

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the images' and labels' bytes, split by split and in order; names and places do not count."""
        return digest_of_pairs({split: self.listed(split, strict) for split in SPLITS}, cache, strict)

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Nothing has to be made: the files stay where they are."""

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of a split. Raises `UserError` for a missing root, list, image or label and a malformed line."""
        return existing(self.listed(split, strict), strict)
