"""A network that is an exported ONNX graph: others trained it, maybe elsewhere, and none of its code is there.

What such graphs want and give differs. The engines get one that takes images N,C,H,W float32 as the data set makes
them, and gives one plane for each class of the data; the graph itself stays as it was given, under its own names.
"""

from segslim.exported.engine_graph import with_opset
from segslim.exported.file import files_of, read_graph
from segslim.exported.network import ExportedNetwork, with_weights

__all__ = ["ExportedNetwork", "files_of", "read_graph", "with_opset", "with_weights"]
