"""Where images and labels come from, how they are read and checked, and the order in which training sees them.

Each kind of data set has the interface `Source`. The room knows neither networks nor what is learned from the images.
"""

from segslim.data.fundus import SyntheticFundus
from segslim.data.layouts import FileList, Folder, Images, PaddleSegDataset, Voc
from segslim.data.optic_disc import OpticDisc
from segslim.data.source import Pair, Source

__all__ = [
    "FileList",
    "Folder",
    "Images",
    "OpticDisc",
    "PaddleSegDataset",
    "Pair",
    "Source",
    "SyntheticFundus",
    "Voc",
]
