"""Where images and labels come from, how they are checked, and the order in which training sees them."""

from segslim.data.file_list import FileList
from segslim.data.source import Pair, Source
from segslim.data.synthetic import SyntheticFundus

__all__ = ["FileList", "Pair", "Source", "SyntheticFundus"]
