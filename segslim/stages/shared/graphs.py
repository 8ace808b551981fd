"""The graphs of a network at the config's image size: that of its channels, and those of files."""

from pathlib import Path
from typing import Any

import onnx

from segslim.channels import ChannelGraph
from segslim.config import Config
from segslim.deployment.export import export_onnx, input_shape
from segslim.outside import import_path


def channel_graph(network: Any, config: Config) -> ChannelGraph:
    """What its channels have to do with each other."""
    rules = {kind: import_path(path, f"compress.rules.{kind}") for kind, path in config.compress.rules.items()}
    width, height = config.dataset.size
    return ChannelGraph.trace(network, (1, 3, height, width), rules)


def float_graph(network: Any, config: Config, folder: Path) -> onnx.ModelProto:
    """The graph that the stage `export` will write: its tensors have the same names."""
    export_onnx(network, folder / "float.onnx", input_shape(config.export.fixed_size), output=config.export.output)
    return onnx.load(folder / "float.onnx")


def write_class_ids_graph(network: Any, config: Config, file: Path) -> None:
    """Writes the one that gives class ids of dataset.size, by which a network is judged on its way."""
    export_onnx(network, file, input_shape(config.dataset.size), output="argmax")
