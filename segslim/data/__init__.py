"""Where images and labels come from, how they are checked, and the order in which training sees them.

One file a kind of data set, each with the interface `Source`; paths and transforms come in, arrays go out. It must not
know networks, nor what is learned from the images.
"""

from segslim.data.ade20k import Ade20k
from segslim.data.cityscapes import Cityscapes
from segslim.data.file_list import FileList
from segslim.data.folder import Folder
from segslim.data.optic_disc import OpticDisc
from segslim.data.source import Pair, Source
from segslim.data.synthetic import SyntheticFundus
from segslim.data.voc import Voc

__all__ = ["Ade20k", "Cityscapes", "FileList", "Folder", "OpticDisc", "Pair", "Source", "SyntheticFundus", "Voc"]
